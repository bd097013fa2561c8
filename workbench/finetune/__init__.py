"""Fine-tuning: LoRA adapters that become part of a pipeline, and must earn their place there."""
