"""The public data sets that have a source of their own."""

from collections.abc import Mapping

from raremix.data.sources import (
    busi,
    chestxray14,
    chexpert,
    covid_ct,
    fetal_planes,
    isic2018,
    kermany,
    medmnist,
    padchest,
    vindr_pcxr,
)
from raremix.data.sources.about import About

CATALOGUE: Mapping[str, About] = {
    module.ABOUT.name: module.ABOUT
    for module in (
        isic2018,
        chestxray14,
        vindr_pcxr,
        kermany,
        busi,
        fetal_planes,
        covid_ct,
        chexpert,
        padchest,
        medmnist,
    )
}
