"""Train and prune in transformers' Trainer: one callback, masks beside each checkpoint, weights that from_pretrained reads.

python examples/huggingface_trainer.py        needs: pip install 'prunescope[hf]' accelerate
"""

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import prunescope as ps
from prunescope.integrations.huggingface import TrainerPruning


def loss(output, labels):
    return nn.functional.cross_entropy(output.logits, labels)


torch.manual_seed(0)
ids = torch.randint(0, 12, (768, 8))
labels = (ids == 3).any(1).long()  # is there a 3 among the tokens?
rows = [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]
config = BertConfig(
    vocab_size=12, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=8,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
model = BertForSequenceClassification(config)

layers = ["bert.encoder.layer.0@tokens", "bert.pooler.activation"]
plane = ps.InformationPlane(model, ids[:512], labels[:512], layers=layers, estimators=[{"name": "binning", "bins": 10}])
pruning = TrainerPruning(sparsity=0.7, criterion="taylor", data=[({"input_ids": ids[:256]}, labels[:256])], loss_fn=loss, plane=plane)
arguments = TrainingArguments(
    "bert", num_train_epochs=10, per_device_train_batch_size=32, learning_rate=5e-3, save_strategy="epoch", logging_strategy="epoch",
    save_total_limit=2, report_to=[], disable_tqdm=True, use_cpu=True,
)  # fmt: skip
trainer = Trainer(model, arguments, train_dataset=rows[:512], eval_dataset=rows[512:], callbacks=[pruning])
trainer.train()  # trainer.train(resume_from_checkpoint=True) goes on with the masks of the last checkpoint

print(pruning.pruner)
predicted = trainer.predict(rows[512:]).predictions.argmax(1)
accuracy = float((torch.as_tensor(predicted) == labels[512:]).float().mean())
print(f"test accuracy {accuracy:.3f} with {pruning.masks.sparsity():.1%} of the weights removed")
