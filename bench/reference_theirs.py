"""The original's side of reference.py, with its own Python: see reference_ours.py.

    python bench/reference_theirs.py CHECKOUT CHECKPOINT WORK

CHECKOUT is apple/ml-clara, CHECKPOINT a checkpoint as it saves them. Its code runs as its authors
call it, in float32, in evaluation mode, without gradients, with as many threads as torch chooses.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def load(checkout: Path, checkpoint: Path) -> Any:
    """Their model with all of a checkpoint's adapters."""
    file = checkout / "openrlhf" / "models" / "modeling_clara.py"  # the package needs much more
    spec = importlib.util.spec_from_file_location("modeling_clara", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["modeling_clara"] = module
    spec.loader.exec_module(module)
    return module.CLaRa.from_pretrained(str(checkpoint)).float().eval()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # their code prints as it works
    os.environ["HF_HUB_OFFLINE"] = "1"
    import numpy as np
    import peft
    import torch
    import transformers

    checkout, checkpoint, work_file = map(Path, sys.argv[1:])
    work = json.loads(work_file.read_text())
    model = load(checkout, checkpoint)
    prepare = model._prepare_encoder_inputs  # noqa: SLF001
    encode_question = model._compr_query_reasoner_stage2  # noqa: SLF001
    latents: dict[int, Any] = {}

    def encode(one: dict[str, Any]) -> Any:
        texts, batch = one["texts"], one["batch"]
        done = [
            model.compress_documents(texts[i : i + batch])[0] for i in range(0, len(texts), batch)
        ]
        return torch.cat(done)

    def query(one: dict[str, Any]) -> Any:
        # What generate_from_questions does first; the original has no public name for it.
        inputs = prepare([one["question"]], max_length=model.doc_max_length)
        states = encode_question(inputs["input_ids"], inputs["attention_mask"])
        return states.reshape(model.n_mem_tokens, -1)

    def answer(one: dict[str, Any]) -> str:
        (text,) = model.generate_from_compressed_documents_and_questions(
            [one["question"]], latents[len(one["texts"])], max_new_tokens=one["tokens"]
        )
        return str(text)

    kinds = {"encode": encode, "query": query, "answer": answer}
    about = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({"about": about}), file=answers)
    with torch.inference_mode():
        for line in sys.stdin:
            one = work[line.strip()]
            if one["kind"] == "answer" and len(one["texts"]) not in latents:
                latents[len(one["texts"])] = encode(one)
            start, processor = time.perf_counter(), time.process_time()
            result = kinds[one["kind"]](one)
            taken: dict[str, Any] = {
                "seconds": time.perf_counter() - start,
                "processor": time.process_time() - processor,
            }
            if isinstance(result, str):
                taken["text"] = result
            else:
                np.save(work_file.with_name(f"{line.strip()}-theirs.npy"), result.numpy())
            print(json.dumps(taken), file=answers)


if __name__ == "__main__":
    main()
