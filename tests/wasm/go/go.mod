module lineshaft.example/guest

go 1.24
