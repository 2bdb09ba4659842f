"""The Flower app and the processes around it: the only home of torch and flwr."""
