"""Encoders, the masked autoencoder and the classifier. Read and write their weights."""

from mgm.models.classifier import Classifier, FrozenEncoder, build_classifier, build_frozen_encoder
from mgm.models.encoder import attention_map
from mgm.models.mae import MAE, build_mae, reconstruct, reconstruction_loss, unpatchify
from mgm.models.vit import gather_tokens, patchify, sinusoid_table
from mgm.models.weights import load_encoder, load_weights, read_weights, save_weights
