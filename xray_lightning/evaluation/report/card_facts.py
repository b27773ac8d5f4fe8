"""What is published about the data sets, and the items of CLAIM with where a model card answers them."""

from typing import NamedTuple


class Publication(NamedTuple):
    """What a data set's authors say of it, and what limits it sets to any model."""

    source: str
    people: str
    labels: str
    limits: tuple[str, ...]


PUBLISHED = {
    "pneumonia": Publication(
        source=(
            "Kermany et al., Cell 2018 ([doi](https://doi.org/10.1016/j.cell.2018.02.010)), as on "
            "[Kaggle](https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia); retrospective"
        ),
        people=(
            "children of one to five years, anterior-posterior chest radiographs from the routine care of one hospital "
            "(Guangzhou Women and Children's Medical Center)"
        ),
        labels=(
            "readings of two physicians, for the test images checked by a third; no culture or follow-up is published"
        ),
        limits=(
            "Children of one to five years from one hospital: nothing is known about adults or other hospitals.",
            "The official test folder has another share of pneumonia than the training folder, so validation "
            "overestimates specificity on it.",
            "Only normal films and pneumonia: any other finding is forced into one of these two classes.",
        ),
    ),
    "covid": Publication(
        source=(
            "COVID-19 Radiography Database, Chowdhury et al. 2020 ([doi](https://doi.org/10.1109/ACCESS.2020.3010287)) "
            "and Rahman et al. 2021 ([doi](https://doi.org/10.1016/j.compbiomed.2021.104319)), as on "
            "[Kaggle](https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database); retrospective, a "
            "collection of several public sources"
        ),
        people="adults and children from many hospitals; age, sex and patient are not published with the images",
        labels="those of each source, which were made in different ways",
        limits=(
            "Each class comes largely from sources of its own, so the source of an image tells much of its class. A "
            "model can score well by telling sources apart, and will then fail elsewhere.",
            "Viral Pneumonia is of children (the Kermany set), the other classes mostly of adults.",
            "Patients are not known: only identical and near-identical images are kept on one side of the split.",
        ),
    ),
}

TORCHVISION = (
    "torchvision's ResNet50 weights {weights}, trained on ImageNet-1k. torchvision is under the BSD 3-Clause licence; "
    "whether ImageNet's terms allow a use of the weights is for the user to check"
)

# Number and subject by CLAIM 2020 (Mongan et al.), where this card or the run folder answers it.
CLAIM = (
    (3, "Background and intended use", "Intended use"),
    (4, "Objectives and hypotheses", "Intended use; no hypothesis was set"),
    (5, "Prospective or retrospective", "Data"),
    (6, "Aim of the study", "Intended use: comparing classifiers"),
    (7, "Sources of the data", "Data"),
    (8, "Who and what was eligible", "Data, as far as published; `catalog.csv` lists every image"),
    (9, "Preprocessing", "Model"),
    (10, "Choice of subsets", "Data: classes and files left out"),
    (11, "Definition of the variables", "Data: classes; Numbers"),
    (12, "De-identification", "not available: done by the publishers of the images"),
    (13, "Missing data", "Data: files left out; there are no other variables"),
    (14, "Reference standard", "Data: labels"),
    (15, "Reason for this reference standard", "not available"),
    (16, "Who annotated", "Data: labels, as far as published"),
    (17, "Tools of annotation", "not available"),
    (18, "Variability of the annotators", "not available"),
    (
        19,
        "Intended sample size",
        "not available: all published images were used; the intervals show what their number allows",
    ),
    (20, "How the data were divided", "Data"),
    (21, "Level at which the parts are disjoint", "Data"),
    (22, "Model, inputs and outputs", "Model"),
    (23, "Software", "Repeat it"),
    (24, "Initial parameters", "Model: weights"),
    (25, "Training", "Model; every value is in `.hydra/config.yaml`"),
    (26, "Choice of the final model", "How choices were made"),
    (27, "Ensemble", "none: one model"),
    (28, "Measures of performance", "Numbers"),
    (29, "Uncertainty and significance", "Numbers; differences between runs in `comparisons.csv` of the sweep"),
    (30, "Robustness", "Subgroups; other seeds where the sweep has them"),
    (31, "Explanation of the model's output", "{explained}"),
    (32, "External test data", "{external}"),
    (33, "Flow of images", "Data: counts of each split, files left out"),
    (34, "Demographics of each part", "not available: age and sex are not published with the images"),
    (35, "Performance on each part", "Numbers: test; `metrics.json`: validation too; training images are not scored"),
    (36, "Performance with its precision", "Numbers"),
    (37, "Failures", "{failures}"),
    (38, "Limits", "Limits"),
    (39, "Consequences for practice", "Intended use: none"),
    (40, "Registration", "not available: none is known"),
    (41, "Protocol, code and data", "Repeat it; Data"),
    (42, "Funding", "not available"),
)
