"""Train and prune in Lightning's Trainer: one callback, masks in Lightning's checkpoints, and a smaller network at the end.

python examples/lightning_trainer.py        needs: pip install 'prunescope[lightning]'
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn

import prunescope as ps
from prunescope.integrations.lightning import LightningPruning


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[:1500], y[:1500]), batch_size=128, shuffle=True)

module = Digits()
plane = ps.InformationPlane(module, x[:1500], y[:1500], estimators=[{"name": "binning", "bins": 30}])
pruning = LightningPruning(sparsity=0.9, criterion="taylor", data=loader, plane=plane)
trainer = lightning.Trainer(max_epochs=12, accelerator="cpu", callbacks=[pruning], logger=False, enable_progress_bar=False)
trainer.fit(module, loader)
trainer.save_checkpoint("digits.ckpt")  # masks are in it; trainer.fit(module, loader, ckpt_path="digits.ckpt") goes on with them

print(pruning.pruner)
accuracy = ps.measure(module, (x[1500:], y[1500:]), ["accuracy"])["accuracy"].value
print(f"test accuracy {accuracy:.3f} with {pruning.masks.sparsity():.1%} of the weights removed")
small, report = ps.compact(module.net.eval(), ps.Masks.from_zeros(module.net), x[:8])
print(f"{report.before} parameters, {report.after} after compaction")
