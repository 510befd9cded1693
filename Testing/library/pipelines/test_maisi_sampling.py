"""NV-Generate packages from mask, size or command line to a volume, with small random networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from maisis import SCALE_FACTOR, small_package, trunk
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler
from scipy.spatial.transform import Rotation
from workers import temporary_environment

from MedGenLib import cli, generate
from MedGenLib.diffusion import SAMPLERS
from MedGenLib.editing.lesions import insert_lesion
from MedGenLib.errors import Cancelled, InputError, MemoryPlanError
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.networks.slabs import Room
from MedGenLib.pipelines import loading
from MedGenLib.pipelines.maisi import memory, sampling, schedule
from MedGenLib.pipelines.maisi.masks import prepare, prepare_grid
from MedGenLib.pipelines.maisi.sampling import MaisiSampling
from MedGenLib.worker.client import Worker

CT, DDPM, BRAIN = "nv-generate-ct", "nv-generate-ct-ddpm", "nv-generate-mr-brain"
FAST = {"seed": 1, "steps": 2, "retries": 0, "device": "cpu", "any_grid": True, "accept_license": True}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    made = {name: small_package(name, home / "models") for name in (CT, DDPM, BRAIN)}
    return home, made


@pytest.fixture(autouse=True)
def installed(packages, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(packages[0]))
    monkeypatch.setattr(sampling, "bfloat16_pays", lambda device: False)
    return packages[1]


def oblique() -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [15, -25, 40], degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag([-1.2, 1.2, 3.0])
    affine[:3, 3] = [12.5, -31.25, 88.125]
    return affine


# ---- schedules


@pytest.mark.parametrize("shape", [(32, 32, 32), (64, 64, 32), (16, 16, 24)])
def test_times_equal_the_published_ones_exactly(shape):
    published = RFlowScheduler(
        num_train_timesteps=1000,
        use_discrete_timesteps=False,
        sample_method="uniform",
        scale=1.4,
        use_timestep_transform=True,
    )
    published.set_timesteps(30, input_img_size_numel=math.prod(shape))
    times = []

    def denoise(x, alpha, sigma):
        times.append(1000 * sigma)
        return x * 0

    SAMPLERS["euler"](denoise, torch.ones(1), 30, shift=schedule.time_shift(shape))
    assert np.allclose(times, published.timesteps.numpy(), atol=0.5)  # theirs are float16
    assert times[0] == 1000


def test_noise_levels_equal_the_published_ones():
    published = DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, schedule="scaled_linear_beta"
    )
    assert np.allclose(schedule.signal_levels(), published.alphas_cumprod.numpy(), rtol=1e-4)
    assert len(schedule.respaced(1000)) == 1001 and len(schedule.respaced(7)) == 8
    assert schedule.respaced(7)[0] == schedule.signal_levels()[-1]
    assert [schedule.training_step(level) for level in schedule.signal_levels()[[0, 500, 999]]] == [0, 500, 999]


def test_ddpm_agrees_with_the_scheduler_of_monai():
    """All 1000 steps with the same noise, with a closed-form denoiser."""
    published = DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.0015, beta_end=0.0195, schedule="scaled_linear_beta", clip_sample=False
    )
    published.set_timesteps(1000)
    noise = torch.randn((1, 1, 4, 4, 4), generator=torch.Generator().manual_seed(0))

    def predicted(x, t):
        return torch.sin(x) * (0.5 + t / 2000)

    x, numbers = noise, torch.Generator().manual_seed(1)
    for t in published.timesteps:
        x, _ = published.step(predicted(x, float(t)), int(t), x, generator=numbers)

    def denoise(x, alpha, sigma):
        return (x - sigma * predicted(x, schedule.training_step(alpha**2))) / alpha

    made = SAMPLERS["ddpm"](
        denoise, noise, 1000, generator=torch.Generator().manual_seed(1), signal=schedule.respaced(1000)
    )
    assert torch.allclose(made, x, atol=2e-3)


# ---- from a mask


def test_the_latent_equals_that_of_the_published_loop(installed):
    """The published ControlNet and U-Net with their velocity, and exact times."""
    manifest = installed[CT]
    scene = prepare(trunk(), manifest, any_grid=True)
    ours = MaisiSampling.of(manifest, CPU, None, 3, scene)
    made = ours.sample(5)

    shape = tuple(n // 4 for n in scene.shape)
    x = torch.randn((1, 4, *shape), generator=torch.Generator().manual_seed(5))
    labels = torch.from_numpy(scene.labels).int()
    bits = torch.stack([((labels >> bit) & 1).float() for bit in range(8)])[None]
    kind = torch.ones(1, dtype=torch.long)
    spacing = 100 * torch.tensor([scene.spacing], dtype=torch.float32)
    ratio = (math.prod(shape) / 32**3) ** (1 / 3)
    times = [ratio * t / (1 + (ratio - 1) * t) for t in (1, 2 / 3, 1 / 3, 0)]
    with torch.inference_mode():
        for now, then in zip(times[:-1], times[1:], strict=True):
            t = torch.tensor([1000 * now])
            down, middle = ours.controlnet(x=x, timesteps=t, controlnet_cond=bits, class_labels=kind)
            velocity = ours.flow(
                x=x,
                timesteps=t,
                spacing_tensor=spacing,
                class_labels=kind,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            )
            x = x + (now - then) * velocity
        expected = ours.autoencoder.decoder(ours.autoencoder.post_quant_conv(x / SCALE_FACTOR))
    assert torch.allclose(made, x, atol=1e-4)
    values = ours.decode(made, None)
    assert values.shape == scene.shape
    assert np.allclose(values, expected[0, 0].numpy(), atol=1e-4)


def test_the_result_of_an_oblique_mask_has_its_grid(installed):
    mask = trunk(affine=oblique())
    result = generate(mask, CT, **FAST)
    volume, report = result.volume, result.report
    assert np.array_equal(volume.affine, mask.affine) and volume.shape == mask.shape
    assert volume.unit == "HU" and volume.modality == "CT"
    outside = mask.array == 0
    assert np.all(volume.array[outside] == -1000)
    assert np.ptp(volume.array[~outside]) > 50
    assert volume.array.min() >= -1000 and volume.array.max() <= 1000
    assert report.parameters["modality"] == "CT" and report.parameters["windows"] == 1
    assert report.parameters["working_shape"] == (64, 64, 32)
    again = generate(mask, CT, **FAST).volume
    assert np.array_equal(again.array, volume.array)


def test_the_result_depends_on_seed_and_mask(installed):
    first = generate(trunk(), CT, **{**FAST, "samples": 2}).volumes
    assert not np.array_equal(first[0].array, first[1].array)
    other = trunk()
    array = other.array.copy()
    array[array == 1] = 62  # liver to colon: six of the eight bits
    changed = generate(other.with_array(array), CT, **FAST).volume
    inside = other.array == 1
    difference = np.abs(changed.array.astype(float) - first[0].array)
    assert difference[inside].mean() > 0.1  # random weights: hardly a HU, but never nothing


def test_the_mask_is_encoded_once_for_all_steps_and_samples(installed, monkeypatch):
    from MedGenLib.networks.maisi import MaisiControlNet

    calls = []
    original = MaisiControlNet.embed
    monkeypatch.setattr(MaisiControlNet, "embed", lambda self, labels: calls.append(1) or original(self, labels))
    generate(trunk(), CT, **{**FAST, "samples": 2, "steps": 3})
    assert len(calls) == 1


def test_a_run_can_be_stopped_at_every_stage(installed):
    seen = set()

    def stop_at(name):
        def progress(state):
            seen.add(state.stage)
            if state.stage == name:
                raise Cancelled("stop")

        return progress

    for name in ("reading the mask", "sampling", "decoding"):
        with pytest.raises(Cancelled):
            generate(trunk(), CT, **FAST, progress=stop_at(name))
        assert name in seen


@pytest.mark.parametrize("sampler", ["heun", "midpoint", "ddim"])
def test_other_samplers(installed, sampler):
    report = generate(trunk(), CT, **FAST, sampler=sampler).report
    assert report.sampler == sampler


# ---- DDPM and its body regions


def test_ddpm_gets_the_region(installed, monkeypatch):
    seen = {}
    scene = prepare(trunk(), installed[DDPM], any_grid=True)
    assert scene.regions == (1, 2)  # lungs to liver
    ours = MaisiSampling.of(installed[DDPM], CPU, None, 2, scene)
    original = ours.flow.forward

    def forward(x, timesteps, **conditions):
        seen.update(conditions, time=float(timesteps))
        return original(x, timesteps, **conditions)

    monkeypatch.setattr(ours.flow, "forward", forward)
    ours.sample(0)
    assert seen["top_region_index_tensor"].tolist() == [[0, 100, 0, 0]]
    assert seen["bottom_region_index_tensor"].tolist() == [[0, 0, 100, 0]]
    assert seen["class_labels"] is None and 0 < seen["time"] < 999
    assert "was made for 1000 steps of ddpm" in str(scene.findings[-1].sentence)


def test_ddpm_refuses_unsupported_requests(installed):
    with pytest.raises(InputError, match="no sampler 'euler'; choose ddim, ddpm"):
        generate(trunk(), DDPM, **FAST, sampler="euler")
    nothing = trunk()
    ribs = nothing.with_array(np.where(nothing.array > 0, 200, 0).astype(np.uint8))
    with pytest.raises(InputError, match="needs the part of the body"):
        generate(ribs, DDPM, mapping="model", **FAST)


# ---- without a mask


def test_an_mr_image_from_a_size(installed):
    result = generate(model=BRAIN, size=(40, 36, 32), spacing=(1.2, 1.2, 2), modality="t2W", **FAST)
    volume = result.volume
    assert volume.shape == (40, 36, 32) and volume.modality == "T2w"
    assert np.allclose(volume.affine[:3, :3], np.diag([1.2, 1.2, 2.0]))
    assert np.allclose(volume.affine @ [19.5, 17.5, 15.5, 1], [0, 0, 0, 1])
    assert volume.array.min() >= 0 and np.ptp(volume.array) > 20
    assert result.report.parameters["modality"] == "T2w"
    assert result.report.parameters["guidance"] == 2


def test_a_mask_can_give_the_grid(installed):
    mask = LabelMap(np.zeros((34, 30, 40), np.uint8), oblique())
    volume = generate(mask, BRAIN, modality="FLAIR_skull_stripped", **FAST).volume
    assert np.array_equal(volume.affine, mask.affine) and volume.shape == mask.shape
    assert volume.modality == "FLAIR"


def test_modality_and_guidance_change_the_image(installed):
    def made(**options):
        return generate(model=BRAIN, size=(32, 32, 32), **FAST, **options).volume.array

    def distance(one, other):
        return np.abs(one.astype(float) - other).mean()

    t1, t2 = made(guidance=1), made(guidance=1, modality="T2w")
    assert distance(t1, t2) > 5
    # The stronger guidance differs more from the unguided image, in the same direction.
    free, more = made(guidance=0), made(guidance=3)
    assert distance(more, free) > 1.5 * distance(t1, free) > 5


SENTENCES = {
    "does not generate 'CTA'; it generates: MR, T1w": {"model": BRAIN, "modality": "CTA"},
    "has no mask; give the size": {"model": BRAIN, "size": None},
    "needs a mask": {"model": CT, "size": None},
    "takes its grid from the mask": {"model": CT, "mask": trunk()},
    "either a mask or a size": {"model": BRAIN, "mask": trunk()},
    "The size is 0 x 32 x 32": {"model": BRAIN, "size": (0, 32, 32)},
    "The spacing is 1 x -1 x 1": {"model": BRAIN, "spacing": (1, -1, 1)},
    "The image is a line": {"model": BRAIN, "size": (1, 1, 64)},
    "image reaches over 600 x 600 x 64.*request voxels of 1.18 x 1.18 x 1": {
        "model": BRAIN,
        "size": (600, 600, 64),
        "any_grid": False,
    },
    "guidance is 31; choose 0 to 30": {"model": BRAIN, "guidance": 31.0},
    "one modality only": {"model": CT, "mask": trunk(), "size": None, "guidance": 2.0},
    "no noise setting": {"model": BRAIN, "noise_hu": 10.0},
    "no classifier": {"model": BRAIN, "classifier_guidance": 1.0},
    "number of steps is 1001": {"model": BRAIN, "steps": 1001},
    "generates CT only; leave the modality": {
        "model": "ct-tissue",
        "mask": trunk(),
        "size": None,
        "modality": "T1w",
        "mapping": {1: 2, 5: 2, 28: 4, 32: 4, 200: 1},
    },
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_unsupported_requests_are_one_sentence(installed, sentence):
    wrong = {**FAST, "size": (32, 32, 32), **SENTENCES[sentence]}
    with pytest.raises(InputError, match=sentence) as caught:
        generate(**wrong)
    assert str(caught.value).count(". ") == 0


def test_a_lesion_needs_an_editable_model(installed):
    image = Volume(np.zeros((8, 8, 8), np.float32), np.eye(4), "CT", "HU")
    with pytest.raises(InputError, match="cannot redraw a part"):
        insert_lesion(image, at=(1, 1, 1), contrast=5, model=CT, accept_license=True)


def test_command_line_without_a_mask(installed, tmp_path, capsys):
    out = tmp_path / "brain.nii.gz"
    words = [
        "generate",
        "-o",
        out,
        "--model",
        BRAIN,
        "--size",
        32,
        32,
        32,
        "--spacing",
        2,
        2,
        2,
        "--modality",
        "t1w-skull-stripped",
        "--steps",
        1,
        "--seed",
        3,
        "--any-grid",
        "--accept-license",
        "--preview",
        tmp_path / "p.png",
    ]
    assert cli.main([str(word) for word in words]) == 0
    assert "T1w in a.u., 32 x 32 x 32 voxels of 2 x 2 x 2 mm" in capsys.readouterr().out
    assert read_volume(out).shape == (32, 32, 32) and (tmp_path / "p.png").stat().st_size > 1000
    assert cli.main(["generate", "-o", str(tmp_path / "x.nii.gz"), "--model", BRAIN]) == 2
    assert "has no mask; give the size" in capsys.readouterr().err


def test_command_line_with_a_mask(installed, tmp_path, capsys):
    write_volume(trunk(), tmp_path / "mask.nii.gz")
    out = tmp_path / "ct.nii.gz"
    words = [
        "generate",
        tmp_path / "mask.nii.gz",
        "-o",
        out,
        "--model",
        CT,
        "--steps",
        1,
        "--seed",
        3,
        "--any-grid",
        "--accept-license",
    ]
    assert cli.main([str(word) for word in words]) in (0, 3)  # random weights can fail the checks
    assert "Wrote" in capsys.readouterr().out
    assert read_volume(out).shape == trunk().shape


# ---- number formats, windows, memory


def test_bfloat16_is_close(installed, monkeypatch):
    scene = prepare(trunk(), installed[CT], any_grid=True)
    exact = MaisiSampling.of(installed[CT], CPU, None, 2, scene).sample(1)
    monkeypatch.setattr(sampling, "bfloat16_pays", lambda device: True)
    loading.forget()
    ours = MaisiSampling.of(installed[CT], CPU, None, 2, scene)
    assert ours.number_format == "bfloat16"
    assert ours.flow.conv_in.conv.weight.dtype == torch.bfloat16
    assert ours.autoencoder.post_quant_conv.conv.weight.dtype == torch.float32
    error = ours.sample(1) - exact
    assert 0 < float(error.std()) < 0.05 * float(exact.std())
    loading.forget()


def test_windows_depend_only_on_the_size(installed):
    settings = installed[CT].settings
    published = memory.windows(settings, (512, 512, 256))
    assert len(list(published)) == 1
    long = memory.windows(settings, (512, 512, 768))
    assert {box[0].stop for box in long} == {128} and len(list(long)) > 2
    assert all(box[2].start % settings.network_stride == 0 for box in long)
    for small in (memory.windows(settings, (512, 512, 128), True), memory.windows(settings, (256, 640, 1024), True)):
        sizes = [math.prod(s.stop - s.start for s in box) for box in small]
        assert max(sizes) <= memory.SMALL_VOXELS and len(sizes) > 1


def test_many_windows_give_one_image(installed, monkeypatch):
    """Close to the latent of one window, as windows share noise and blend velocities."""
    monkeypatch.setattr(memory, "MOST_VOXELS", 16 * 16 * 32)
    manifest = installed[BRAIN]
    scene = prepare_grid(Geometry((64, 64, 192), np.eye(4)), manifest, any_grid=True)
    scene.modality = "T1w"
    ours = MaisiSampling.of(manifest, CPU, None, 2, scene, guidance=1)
    assert ours.window_count == 2 and {axis for axis, _ in ours.windows.borders} == {2}
    pieces = ours.sample(2)
    monkeypatch.setattr(memory, "MOST_VOXELS", 2**20)
    whole = MaisiSampling.of(manifest, CPU, None, 2, scene, guidance=1)
    expected = whole.sample(2)
    assert whole.window_count == 1 and pieces.shape == expected.shape
    same = torch.corrcoef(torch.stack([pieces.flatten(), expected.flatten()]))[0, 1]
    assert float(same) > 0.9


def test_memory_is_checked_before_networks_are_loaded(installed, monkeypatch):
    scene = prepare(trunk(), installed[CT], any_grid=True)
    monkeypatch.setattr(memory, "free_memory", lambda device: 50 * 2**20)
    with pytest.raises(MemoryPlanError, match="64 x 64 x 32 voxels needs about .*--memory small"):
        MaisiSampling.of(installed[CT], CPU, None, 2, scene)
    with pytest.raises(MemoryPlanError, match="use another device or a smaller grid"):
        MaisiSampling.of(installed[CT], CPU, None, 2, scene, memory="small")


def test_auto_selects_and_reports_the_small_plan(installed, monkeypatch):
    needed = {False: 2**60, True: 1}
    monkeypatch.setattr(memory, "needed_bytes", lambda *job: needed[job[-1]])
    report = generate(trunk(), CT, **FAST, memory="auto").report
    assert report.parameters["memory"] == "small"
    assert any("smaller windows were computed" in sentence for sentence in report.sentences)


def test_decoding_fits_a_24_gib_machine(monkeypatch):
    monkeypatch.setattr(memory, "total_memory", lambda device: 24 * 2**30)
    assert memory.room((128, 128, 128), CPU) == Room(24 * 2**30 // 5, None)
    for shape in [(256, 256, 256), (512, 512, 128), (512, 512, 256)]:
        usual, small = (memory.decoding_bytes(shape, memory.room(shape, CPU, small)) for small in (False, True))
        assert small < usual < 12 * 2**30


@pytest.mark.slow
def test_a_worker_generates_images_from_a_size(installed, packages):
    with temporary_environment(MEDGEN_HOME=str(packages[0])), Worker() as worker:
        answer = worker.call("generate", model=BRAIN, size=[32, 32, 32], modality="FLAIR", **FAST)
        assert answer["report"]["parameters"]["modality"] == "FLAIR"
        assert len(answer["volumes"]) == 1
        with pytest.raises(InputError, match="has no mask; give the size"):
            worker.call("generate", model=BRAIN, **FAST)
