from pathlib import Path

import pytest

from valska.external_tools.core.templates import (
    TemplateError,
    get_template_path,
    get_templates_dir,
    list_templates,
)


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    directory = tmp_path / "templates"
    (directory / "small").mkdir(parents=True)
    for name in ("small.yaml", "large.yaml", "notes.md", "small/telescope.yaml"):
        (directory / name).write_text("a: 1\n")
    return directory


def test_templates_lie_beside_the_tools_module(tmp_path: Path) -> None:
    assert get_templates_dir(tmp_path / "tool.py") == tmp_path / "templates"


def test_only_the_top_files_with_the_suffix_are_templates(templates: Path) -> None:
    assert list_templates(templates) == ["large", "small"]
    assert list_templates(templates, suffix=".md") == ["notes"]


def test_no_directory_means_no_templates(tmp_path: Path) -> None:
    assert list_templates(tmp_path / "absent") == []


@pytest.mark.parametrize("name", ["small", "small.yaml"])
def test_a_template_is_found_with_or_without_its_suffix(templates: Path, name: str) -> None:
    assert get_template_path(templates, name) == templates / "small.yaml"


def test_a_typing_error_gets_the_near_name_and_the_list(templates: Path) -> None:
    with pytest.raises(TemplateError) as caught:
        get_template_path(templates, "smal")
    assert caught.value.hint == "Did you mean 'small'? Available: large, small."
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["../secret", "small/telescope", "", "/etc/passwd", "."])
def test_a_name_cannot_leave_the_directory(templates: Path, name: str) -> None:
    (templates.parent / "secret.yaml").write_text("a: 1\n")
    with pytest.raises(TemplateError, match="no template is called"):
        get_template_path(templates, name)
