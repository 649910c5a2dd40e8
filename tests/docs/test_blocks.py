from __future__ import annotations

import textwrap

import pytest

from tests.docs.blocks import Block, marked_blocks


def page(text: str) -> str:
    return textwrap.dedent(text).lstrip()


def test_only_marked_blocks_are_found() -> None:
    assert marked_blocks(
        page("""
            # Title

            ```python
            left.alone()
            ```

            <!-- runs -->
            ```python
            import this

            print(1)
            ```

            <!-- file: shop/tasks.py -->
            ```python
            app = 1
            ```

            <!--runs-->
            ```bash
            ls
            ```
        """)
    ) == [
        Block(9, "python", "import this\n\nprint(1)\n"),
        Block(16, "python", "app = 1\n", "shop/tasks.py"),
        Block(21, "bash", "ls\n"),
    ]


def test_a_mark_inside_a_block_is_text() -> None:
    assert marked_blocks(page("""
        ````markdown
        <!-- runs -->
        ```python
        example()
        ```
        ````
    """)) == []  # fmt: skip


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<!-- runs -->\n\n```python\n1\n```\n", "line 1: .* stands over no code block"),
        ("<!-- runs -->\n```yaml\na: 1\n```\n", "only python and bash"),
        ("<!-- runs -->\n```python\n1\n", "not closed"),
    ],
)
def test_a_mistaken_mark_is_refused(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        marked_blocks(text)
