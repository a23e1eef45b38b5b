module jumpscripts/ages

go 1.21
