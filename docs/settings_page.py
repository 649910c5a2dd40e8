"""The page of all settings: ``python docs/settings_page.py > docs/settings.md``"""

from __future__ import annotations

from raycelery.app.settings import SETTINGS, Setting

_HEAD = """\
# Settings

raycelery's settings are set like Celery's, and begin with `ray_`; in Django `CELERY_RAY_ADDRESS` and so on. An unknown
name or a malformed value is refused where it is written. What tasks ask for is set by
[task options](using.md#what-a-task-needs). This page is generated from `raycelery/app/settings.py`:
`python docs/settings_page.py > docs/settings.md`.

| setting | type | default | what it does |
| --- | --- | --- | --- |
"""
_TAIL = """
## Celery's settings

They mean what they mean to Celery, but for these:

| setting | what it does here |
| --- | --- |
| `broker_url`, `result_backend` | in direct mode they may stay: calls and results do not go there, unless `ray_keep_result_backend` is set; [ids from before](switching.md) are looked up there |
| `worker_concurrency` | limits how many messages of the application run at once in the whole cluster; by default there is no limit |
| `worker_send_task_events` | is ignored: task events are sent while a tool listens |
| `task_serializer`, `result_serializer` | need not be set: any value that can be pickled travels, as with `"pickle"`; another serializer is used with all its restrictions |
"""  # noqa: E501


def page() -> str:
    """Return the page, in Markdown."""
    rows = (
        f"| `{name}` | {setting.kind} | {_default(setting)} | {setting.about} |\n" for name, setting in SETTINGS.items()
    )
    return "".join((_HEAD, *rows, _TAIL))


def _default(setting: Setting) -> str:
    if setting.computed:
        return setting.computed
    value = setting.default
    return f"{value:,.12g}" if type(value) in (int, float) else f"`{value!r}`".replace("'", '"')


if __name__ == "__main__":
    print(page(), end="")
