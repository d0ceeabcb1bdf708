"""The papers' data sets of faces, human and feline: what they are, and how one gets them."""

from __future__ import annotations

from ulm.datasets.real.base import Source

_CELEBA = "ulm.datasets.real.celeba"
_ANNO = "Anno/list_{0}.txt or list_{0}.txt"
_LANDMARKS, _BOXES = _ANNO.format("landmarks_align_celeba"), _ANNO.format("bbox_celeba")
_WILD_LANDMARKS = _ANNO.format("landmarks_celeba")
_PARTITION = "Eval/list_eval_partition.txt or Anno/list_eval_partition.txt or list_eval_partition.txt"
_LISTS = ("MAFL/training.txt", "MAFL/testing.txt")
_ALIGNED = (
    "Img/img_align_celeba_hq or Img/img_align_celeba or Img/img_align_celeba_png or img_align_celeba_hq or "
    "img_align_celeba or img_align_celeba_png"
)
_WILD = "Img/img_celeba or Img/img_celeba.7z/img_celeba or img_celeba"
_CELEBA_LICENCE = "non-commercial research only (CelebA agreement)"
_CELEBA_ACCESS = (
    "free download after agreeing to its terms; MAFL's two lists: TCDCN-face-alignment repository, folder MAFL"
)
_CELEBA_SITE = "the CelebA page of MMLab, The Chinese University of Hong Kong"
_CELEBA_CITATION = "Liu, Luo, Wang and Tang, Deep Learning Face Attributes in the Wild (ICCV 2015)"
_MAFL_CITATION = (
    "Zhang, Luo, Loy and Tang, Learning Deep Representation for Face Alignment with Auxiliary Attributes (TPAMI 2016); "
    + _CELEBA_CITATION
)

CELEBA = Source(
    name="celeba",
    title="CelebA, aligned, without MAFL's test images",
    standin="procedural:faces",
    landmarks=5,
    licence=_CELEBA_LICENCE,
    access=_CELEBA_ACCESS,
    site=_CELEBA_SITE,
    splits="161,962 / 19,771 / 19,866: CelebA's own partition, less the 1,000 test images of MAFL",
    normaliser="pupils",
    citation=_CELEBA_CITATION,
    layout=(_ALIGNED, _LANDMARKS, _PARTITION, _LISTS[1]),
    loader=(_CELEBA, "celeba"),
    checker=(_CELEBA, "check_celeba"),
)

MAFL = Source(
    name="mafl",
    title="MAFL (aligned images of CelebA)",
    standin="procedural:faces",
    landmarks=5,
    licence=_CELEBA_LICENCE,
    access=_CELEBA_ACCESS,
    site=_CELEBA_SITE,
    splits="19,000 train, 1,000 test (MAFL's lists); val: the 17,961 validation images of CelebA that MAFL lacks",
    normaliser="pupils",
    citation=_MAFL_CITATION,
    layout=(_ALIGNED, _LANDMARKS, *_LISTS),
    loader=(_CELEBA, "mafl"),
    checker=(_CELEBA, "check_mafl"),
)

CELEBA_WILD = Source(
    name="celeba-wild",
    title="CelebA in the wild (MAFL's images, not aligned)",
    standin="procedural:faces-wild",
    landmarks=5,
    licence=_CELEBA_LICENCE,
    access=_CELEBA_ACCESS,
    site=_CELEBA_SITE,
    splits="5,379 train, 283 test: MAFL's lists where the face's box covers at least 30 % of the image; val: CelebA's",
    normaliser="pupils",
    citation=_MAFL_CITATION,
    layout=(_WILD, _WILD_LANDMARKS, _BOXES, *_LISTS),
    loader=(_CELEBA, "celeba_wild"),
    checker=(_CELEBA, "check_celeba_wild"),
)

AFLW = Source(
    name="aflw",
    title="AFLW, five landmarks (cropped release of Zhang et al., or MTFL's crops)",
    standin="procedural:faces-posed",
    landmarks=5,
    licence="academic research only (AFLW agreement)",
    access="AFLW on request by e-mail, then aflw_release-2.zip; the other layout: MTFL.zip and aflw_cropped",
    site="the AFLW page of TU Graz, the IMM page of VGG Oxford, the TCDCN page of MMLab Hong Kong",
    splits="10,122 train, of which the last 10 % are val as in IMM; 2,991 test with 132 faces twice (MTFL: 2,995 test)",
    normaliser="pupils",
    citation="Köstinger, Wohlhart, Roth and Bischof, Annotated Facial Landmarks in the Wild (ICCV Workshops 2011)",
    layout=(
        "aflw_train_images.txt or aflw_data/aflw_train_images.txt",
        "aflw_train_keypoints.mat or aflw_data/aflw_train_keypoints.mat",
        "aflw_test_images.txt or aflw_data/aflw_test_images.txt",
        "aflw_test_keypoints.mat or aflw_data/aflw_test_keypoints.mat",
        "output or aflw_images",
    ),
    loader=("ulm.datasets.real.aflw", "aflw"),
    checker=("ulm.datasets.real.aflw", "check"),
    other_layout=(
        "MTFL/testing.txt",
        "MTFL/AFLW or MTFL/*",
        "aflw_cropped/facedata_cropped.csv",
        "aflw_cropped/cropped",
    ),
)

LS3D = Source(
    name="ls3d",
    title="LS3D-W balanced (test) and 300W-LP (train)",
    standin="procedural:faces-posed",
    landmarks=68,
    licence="research only",
    access="LS3D-W by a form; 300W-LP free download",
    site="the face-alignment page of Adrian Bulat (LS3D-W balanced), the 3DDFA page of CBSR Beijing (300W-LP)",
    splits="61,225 of 300W-LP for train and val (5 % of its photographs), 7,200 of LS3D-W balanced for test",
    normaliser="box",
    citation=(
        "Bulat and Tzimiropoulos, How far are we from solving the 2D & 3D Face Alignment problem? (ICCV 2017); "
        "Zhu, Lei, Liu, Shi and Li, Face Alignment Across Large Poses (CVPR 2016)"
    ),
    layout=(
        "300W_LP/landmarks or 300W-LP/landmarks",
        "LS3D-W-balanced-20-03-2017/new_dataset or LS3D-W-balanced*/new_dataset or new_dataset",
    ),
    loader=("ulm.datasets.real.ls3d", "ls3d"),
    checker=("ulm.datasets.real.ls3d", "check"),
)

CATS = Source(
    name="cats",
    title="CAT, heads of cats (all ten thousand photographs, or the crops of Zhang et al.)",
    standin="procedural:cats",
    landmarks=9,
    licence="none stated; research",
    access="free download of cats.zip (CAT_00 to CAT_06); the other layout: cat_images.tar.gz and cat_data",
    site="the Internet Archive or Academic Torrents (CAT), the lmdis-rep project page (crops)",
    splits="75 % train and val (5 % of it), 25 % test by a hash of the name; crops: 7,747 train and val, 1,257 test",
    normaliser="box",
    citation=(
        "Zhang, Sun and Tang, Cat Head Detection (ECCV 2008); crops: Zhang et al., Unsupervised Discovery of Object "
        "Landmarks as Structural Representations (CVPR 2018)"
    ),
    layout=("CAT_0*",),
    loader=("ulm.datasets.real.cats", "cats"),
    checker=("ulm.datasets.real.cats", "check"),
    other_layout=("cat_train_images.txt or cat_data/cat_train_images.txt", "cat_images"),
)

VOXCELEB = Source(
    name="voxceleb",
    title="VoxCeleb1, cropped face frames",
    standin="procedural:talking-faces",
    landmarks=0,
    licence="metadata CC BY 4.0; the pictures belong to their makers: research only",
    access="by a form; as zipped face frames (unzippedFaces, unzippedIntervalFaces)",
    site="the VoxCeleb page of VGG Oxford",
    splits="1,211 speakers for train and val (5 % of them), 40 for test (verification split)",
    normaliser="image",
    citation="Nagrani, Chung and Zisserman, VoxCeleb: a large-scale speaker identification dataset (Interspeech 2017)",
    layout=(
        "unzippedIntervalFaces/data/*/1.6/*/*/*.jpg or unzippedFaces/*/1.6/*/*.jpg or */1.6/*/*.jpg or "
        "*/1.6/*/*/*.jpg or id1*/*/*/*.jpg",
    ),
    loader=("ulm.datasets.real.voxceleb", "voxceleb"),
    checker=("ulm.datasets.real.voxceleb", "check"),
)

SOURCES = (CELEBA, MAFL, CELEBA_WILD, AFLW, LS3D, CATS, VOXCELEB)
