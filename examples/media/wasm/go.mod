module lineshaft.example/media

go 1.24
