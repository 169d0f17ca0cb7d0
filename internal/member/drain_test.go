package member

import (
	"net"
	"net/netip"
	"testing"
)

// What is written in the kernel's table for an IPv4 connection, also over an IPv6
// socket, is the same address.
func TestAddr(t *testing.T) {
	for in, want := range map[string]string{"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1"} {
		if got := addr(net.ParseIP(in)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
