module jumpscripts/{{name}}

go 1.21
