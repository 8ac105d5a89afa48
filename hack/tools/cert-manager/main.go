// Cert-manager prints the resource definitions of the cert-manager that is built
// beside it. The version in go.mod is the last whose programs are in one module
// with what they are made of; what the chart makes is the same to it and to later ones.
package main

import (
	"embed"
	"fmt"
	"io/fs"
	"log"
)

// prepare.sh puts the files there.
//
//go:embed crds/*.yaml
var files embed.FS

func main() {
	names, err := fs.Glob(files, "crds/*.yaml")
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("---\n%s\n", text)
	}
}
