"""The command line that Ray gives to a shell: nothing of the application's own words is read by that."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

#: Becomes the program. Base64 has no character that a shell, or Python within these quotes, would act on.
_BECOME = "python -c 'import base64,json,os; a=json.loads(base64.b64decode(\"{}\")); os.execvp(a[0], a)'"


def of(words: Sequence[str]) -> str:
    """Return an entrypoint for Ray's Job API.

    Arguments:
        words: the program and its arguments, which arrive there as they are.
    """
    return _BECOME.format(base64.b64encode(json.dumps(list(words)).encode()).decode())
