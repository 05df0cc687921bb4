go run ./scenario
