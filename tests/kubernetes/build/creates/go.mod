module creates

go 1.24
