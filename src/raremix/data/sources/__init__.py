"""Where labelled images come from.

One source is one table of a study file: `source` picks the class, the other keys are its arguments.
"""

from collections.abc import Mapping

from raremix.core.protocols import Source
from raremix.data.sources.busi import BUSI
from raremix.data.sources.chestxray14 import ChestXray14
from raremix.data.sources.chexpert import CheXpert
from raremix.data.sources.covid_ct import CovidCT
from raremix.data.sources.dicom import Dicom
from raremix.data.sources.fetal_planes import FetalPlanes
from raremix.data.sources.folder import Folder
from raremix.data.sources.isic2018 import ISIC2018
from raremix.data.sources.kermany import Kermany
from raremix.data.sources.manifest import Written
from raremix.data.sources.medmnist import MedMNIST
from raremix.data.sources.padchest import PadChest
from raremix.data.sources.phantom import Phantom
from raremix.data.sources.table import Table
from raremix.data.sources.vindr_pcxr import VindrPCXR

SOURCES: Mapping[str, type[Source]] = {
    "folder": Folder,
    "table": Table,
    "dicom": Dicom,
    "manifest": Written,
    "medmnist": MedMNIST,
    "isic2018": ISIC2018,
    "chestxray14": ChestXray14,
    "vindr_pcxr": VindrPCXR,
    "kermany": Kermany,
    "busi": BUSI,
    "fetal_planes": FetalPlanes,
    "covid_ct": CovidCT,
    "chexpert": CheXpert,
    "padchest": PadChest,
    "phantom": Phantom,
}

__all__ = [
    "BUSI",
    "ISIC2018",
    "SOURCES",
    "CheXpert",
    "ChestXray14",
    "CovidCT",
    "Dicom",
    "FetalPlanes",
    "Folder",
    "Kermany",
    "MedMNIST",
    "PadChest",
    "Phantom",
    "Table",
    "VindrPCXR",
    "Written",
]
