//go:build !linux

// Lab needs Linux; see docs/lab.md.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "lab: it needs Linux, with network namespaces")
	os.Exit(1)
}
