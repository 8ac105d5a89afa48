// Definitions prints the resource definitions of the kinds of others that the
// chart can make, as their projects publish them.
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
