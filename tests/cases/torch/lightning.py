"""Makes lightning.ckpt and lightning.yaml: a training checkpoint of a tiny GPT, saved by PyTorch Lightning's own trainer with
the hyperparameters that NeMo leaves in it, OmegaConf objects among them.

    pip install torch pytorch_lightning==2.5.5 omegaconf==2.3.0
    python lightning.py
"""
import pathlib
import shutil
import tempfile
import warnings

import pytorch_lightning
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint

warnings.filterwarnings("ignore")
HIDDEN, INNER, LAYERS, ROWS, POSITIONS = 8, 16, 2, 32, 16
CONFIG = OmegaConf.create({
    "micro_batch_size": 4, "encoder_seq_length": POSITIONS, "max_position_embeddings": "${.encoder_seq_length}",
    "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": INNER, "num_attention_heads": 2,
    "make_vocab_size_divisible_by": 16, "layernorm_epsilon": 1e-5, "kv_channels": None, "bias": True,
    "optim": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.98], "sched": {"name": "CosineAnnealing"}},
    "tokenizer": {"library": "megatron", "type": "GPT2BPETokenizer"},
})


class Gpt(pytorch_lightning.LightningModule):
    """Only as deep as its parameters' names: `model.language_model.…`."""

    def __init__(self, cfg):
        super().__init__()
        self.save_hyperparameters()
        names = {"embedding.word_embeddings.weight": (ROWS, HIDDEN), "embedding.position_embeddings.weight": (POSITIONS, HIDDEN)}
        for layer in range(LAYERS):
            at = f"encoder.layers.{layer}."
            for name, outputs, inputs in [("self_attention.query_key_value", 3 * HIDDEN, HIDDEN), ("self_attention.dense", HIDDEN, HIDDEN),
                                          ("mlp.dense_h_to_4h", INNER, HIDDEN), ("mlp.dense_4h_to_h", HIDDEN, INNER)]:
                names[f"{at}{name}.weight"], names[f"{at}{name}.bias"] = (outputs, inputs), (outputs,)
            for name in ["input_layernorm", "post_attention_layernorm"]:
                names[f"{at}{name}.weight"] = names[f"{at}{name}.bias"] = (HIDDEN,)
        names["encoder.final_layernorm.weight"] = names["encoder.final_layernorm.bias"] = (HIDDEN,)
        for name, shape in names.items():
            self.add_nested("model.language_model." + name, torch.nn.Parameter(torch.randn(shape) * 0.3))

    def add_nested(self, path, parameter):
        *parents, name = path.split(".")
        at = self
        for part in parents:
            if part not in at._modules:
                at.add_module(part, torch.nn.Module())
            at = at._modules[part]
        at.register_parameter(name, parameter)

    def training_step(self, batch):
        loss = sum((parameter ** 2).sum() for parameter in self.parameters())
        self.log("reduced_train_loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.cfg.optim.lr)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]


torch.manual_seed(0)
here = pathlib.Path(__file__).parent
with tempfile.TemporaryDirectory() as folder:
    checkpoint = ModelCheckpoint(dirpath=folder, monitor="reduced_train_loss", save_last=True)
    trainer = pytorch_lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, callbacks=[checkpoint], enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Gpt(CONFIG), torch.utils.data.DataLoader(torch.zeros(2, 1)))
    shutil.copy(pathlib.Path(folder, "last.ckpt"), here / "lightning.ckpt")
OmegaConf.save(OmegaConf.create({"cfg": OmegaConf.to_container(CONFIG, resolve=True)}), here / "lightning.yaml")
