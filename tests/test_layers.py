"""What importing costs, and that every setting is read by some code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from alpaca_farm_core.config.base import Config
from alpaca_farm_core.config.study import study_class
from alpaca_farm_core.evaluation.report.config import ReportConfig

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "openai", "prefect", "datasets", "pandas", "accelerate", "diskcache")


def loaded_after(code):
    script = f"{code}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import alpaca_farm_core",
        "from alpaca_farm_core.config.presets import build_study; build_study('meadow')",
        "import alpaca_farm_core.pipeline.registry",
        "import alpaca_farm_core.pipeline.runner",
        "from flows.cli.main import cli; cli.main(['--help'], standalone_mode=False)",
        "from flows.cli.main import main\ntry: main(['artifacts', 'list'])\nexcept SystemExit: pass",
        "from flows.cli.main import main\ntry: main(['config', 'show', '--explain'])\nexcept SystemExit: pass",
        "from flows.cli.main import main\ntry: main(['run', 'rlhf', '--dry-run'])\nexcept SystemExit: pass",
    ],
)
def test_light_imports(code):
    assert loaded_after(code) == "[]"


def config_classes(cls, found=None):
    found = set() if found is None else found
    found.add(cls)
    for field in cls.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            config_classes(field.annotation, found)
    return found


def attributes_read():
    names = set()
    for package in ("alpaca_farm_core", "tasks", "flows"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    names.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    names.add(node.value)  # read through getattr or a template
    return names


def test_every_setting_is_read():
    read = attributes_read()
    sections = set(study_class().model_fields)  # read by `StudyConfig.section`
    unread = {
        f"{cls.__name__}.{name}"
        for cls in (*config_classes(study_class()), ReportConfig)
        for name in cls.model_fields
        if name not in read and name not in sections
    }
    assert unread == set()


def test_every_setting_is_described():
    undescribed = {
        f"{cls.__name__}.{name}"
        for cls in config_classes(study_class())
        for name, field in cls.model_fields.items()
        if not field.description
    }
    assert undescribed == set()
