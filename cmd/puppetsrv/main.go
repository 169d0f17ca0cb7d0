// Command puppetsrv is CoreDNS with the puppetsrv plugin compiled in and only
// the other plugins that an authoritative server needs.
package main

import "github.com/coredns/coredns/coremain"

func main() {
	coremain.Run()
}
