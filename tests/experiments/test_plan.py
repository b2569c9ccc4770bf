from __future__ import annotations

import dataclasses

import pytest
import torch

from vop import methods
from vop.backbones import find_sizes
from vop.backbones.sizes import VIT_B_32
from vop.errors import UsageError, VopError
from vop.experiments.plan import ABLATIONS, Arm, Plan, Search, ablation_arms, arms_of, check_same
from vop.training.recipe import Recipe


def plan(**changes) -> Plan:
    values = {"kind": "compare", "data": "d", "arms": arms_of(["vop", "full"]), "recipe": Recipe(), "backbone": "mini"}
    return Plan(**values | changes)


class TestArms:
    def test_arms_keep_only_settings_of_their_method(self):
        arms = arms_of(
            ["zero-shot", "vop", "vop-c/seqTransf"], settings={"num_frames": 6, "cmm": "lstm", "head.layers": 2}
        )
        assert [arm.settings for arm in arms] == [
            {"num_frames": 6},
            {"num_frames": 6},
            {"num_frames": 6, "cmm": "lstm", "head.layers": 2},
        ]
        assert [(arm.name, arm.method, arm.head) for arm in arms][1:] == [
            ("vop", "vop", "meanP"),
            ("vop-c/seqTransf", "vop-c", "seqTransf"),
        ]

    def test_explicit_defaults_change_nothing(self):
        (spelt,), (plain,) = arms_of(["vop-p"], settings={"specific_prompts": 4, "num_frames": 12}), arms_of(["vop-p"])
        assert spelt == plain

    def test_the_head_option_applies_to_all_arms(self):
        assert [(arm.name, arm.head) for arm in arms_of(["vop", "full/seqLSTM"], head="x-pool")] == [
            ("vop/x-pool", "x-pool"),
            ("full/seqLSTM", "seqLSTM"),
        ]

    @pytest.mark.parametrize(
        ("names", "settings", "says"),
        [
            (["vop-x"], {}, "unknown method 'vop-x'"),
            (["vop/xpool"], {}, "unknown head 'xpool': did you mean x-pool"),
            (["vop", "full"], {"cmm": "lstm"}, "unknown setting 'cmm'"),
        ],
    )
    def test_unknown_arms_are_refused(self, names, settings, says):
        with pytest.raises(UsageError, match=says):
            arms_of(names, settings=settings)

    def test_arms_with_the_same_training_share_a_key(self):
        same = [Arm(name="a", method="vop"), Arm(name="b", method="vop", settings={"num_frames": 6})]
        assert {arm.key for arm in same} == {"vop"}
        others = [
            *(Arm(name="c", method="vop", settings={"text_layers": layers}) for layers in ([], [1])),
            *(Arm(name="d", method="vop", head=head) for head in ("seqTransf", "x-pool")),
        ]
        assert len({arm.key for arm in [*same, *others]}) == 5


class TestPlan:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"arms": ()}, "no arms"),
            ({"arms": (Arm(name="a", method="vop"), Arm(name="a", method="full"))}, "the arm 'a' is listed twice"),
            ({"seeds": (1, 1)}, "the seed 1 is listed twice"),
            ({"seeds": ()}, r"seeds are \[\]"),
            ({"seeds": (-1,)}, r"seeds are \[-1\]"),
            ({"seeds": (0, 2**63)}, str(2**63)),
            ({"baseline": "bias"}, "the baseline 'bias' is not among the arms: vop, full"),
        ],
    )
    def test_invalid_plans_are_refused(self, changes, says):
        with pytest.raises(UsageError, match=says):
            plan(**changes)

    @pytest.mark.parametrize(
        "changes",
        [
            {"recipe": Recipe(epochs=6)},
            {"recipe": Recipe(ema_decay=0.99)},
            {"recipe": Recipe(rates={"text": 0.5})},
            {"search": Search(trials=3)},
            {"split": "val"},
            {"arms": arms_of(["vop"], settings={"num_frames": 3})},
        ],
    )
    def test_the_identity_includes_what_changes_results(self, changes):
        known = {"splits": {"train": "1"}, "backbone": "2"}
        one, other = plan(search=Search()).identity(**known), plan(**{"search": Search(), **changes}).identity(**known)
        with pytest.raises(VopError, match="OUT holds an experiment"):
            check_same(one, other, out="OUT")

    def test_differences_are_named(self):
        known = {"splits": {"train": "1"}, "backbone": "2"}
        one, other = (
            plan().identity(**known),
            plan(recipe=Recipe(epochs=7)).identity(splits={"train": "3"}, backbone="2"),
        )
        with pytest.raises(VopError, match="epochs: 5 in the folder, 7 given") as caught:
            check_same(one, other, out="OUT")
        assert "data: {'train': '1'} in the folder, {'train': '3'} given" in str(caught.value)

    def test_workers_seeds_and_arms_are_not_in_the_identity(self):
        known = {"splits": {"train": "1"}, "backbone": "2"}
        more = plan(recipe=Recipe(workers=7), seeds=(0, 1, 2), arms=arms_of(["vop", "bias"]))
        check_same(plan().identity(**known), more.identity(**known), out="OUT")

    def test_only_given_rates_are_in_the_identity(self):
        known = {"splits": {}, "backbone": "2"}
        assert plan().identity(**known)["learning_rate"] == Recipe().learning_rate
        assert plan(search=Search()).identity(**known)["learning_rate"] is None


class TestAblations:
    @pytest.mark.parametrize("backbone", ["ViT-B/32", "mini"])
    @pytest.mark.parametrize("study", ABLATIONS)
    def test_all_arms_can_be_built_and_share_one_rate(self, study, backbone):
        sizes = find_sizes(backbone)
        arms = ablation_arms(study, sizes, settings={"num_frames": 6})
        assert len(arms) >= 2
        assert len({arm.name for arm in arms}) == len({arm.key for arm in arms}) == len(arms)
        (default,) = [arm for arm in arms if arm.rate_of is None]
        assert {arm.rate_of for arm in arms if arm is not default} == {default.name}
        assert default.key == default.method  # the run of `vop compare` is its own
        for arm in arms:
            with torch.device("meta"):
                assert methods.create(arm.method, sizes, **arm.settings).num_frames == 6
        Plan(kind=study, data="d", arms=arms, recipe=Recipe(), backbone=backbone)

    @pytest.mark.parametrize(
        ("study", "x"),
        [
            ("depth", [1, 3, 6, 9, 12]),
            ("length", [4, 8, 12, 16, 20]),
            ("specific-length", [1, 2, 4, 6, 8]),
            ("split-layer", [0, 2, 4, 6, 8, 10, 12]),
        ],
    )
    def test_ablations_of_vit_b_32_match_the_paper(self, study, x):
        assert [arm.x for arm in ablation_arms(study, VIT_B_32, settings={})] == x

    def test_depth_covers_both_towers(self):
        sizes = dataclasses.replace(VIT_B_32, text=dataclasses.replace(VIT_B_32.text, layers=4))
        settings = [arm.settings for arm in ablation_arms("depth", sizes, settings={})]
        assert [(len(s["visual_layers"]), len(s["text_layers"])) for s in settings[:-1]] == [
            (1, 1),
            (3, 1),
            (6, 2),
            (9, 3),
        ]
        assert settings[-1] == {}

    def test_unknown_ablations_are_refused(self):
        with pytest.raises(UsageError, match="unknown ablation 'lenght': did you mean length"):
            ablation_arms("lenght", VIT_B_32, settings={})
