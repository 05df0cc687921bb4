"""Messages of the contract, generated from proto/lineshaft/v1."""
