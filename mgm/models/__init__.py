"""Encoders, the masked autoencoder, the classifier, and weights in and out."""

from mgm.models.classifier import Classifier, Features, build_classifier, build_features
from mgm.models.mae import MAE, build_mae, reconstruction_loss
from mgm.models.weights import load_encoder, read_weights, save_weights

__all__ = [
    "MAE",
    "Classifier",
    "Features",
    "build_classifier",
    "build_features",
    "build_mae",
    "load_encoder",
    "read_weights",
    "reconstruction_loss",
    "save_weights",
]
