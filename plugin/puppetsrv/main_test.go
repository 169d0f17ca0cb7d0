package puppetsrv_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"go.uber.org/goleak"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/transfer"
)

// TestMain gives the tests a whole CoreDNS: the plugins that any file here
// imports, in CoreDNS's order, with puppetsrv in the place that the README names.
// Directives are process-wide and set once. No goroutine may outlive the tests.
func TestMain(m *testing.M) {
	clog.Discard()
	caddy.Quiet, dnsserver.Quiet = true, true
	registered := caddy.ListPlugins()["others"]
	var directives []string
	for _, name := range dnsserver.Directives {
		if name == "file" {
			directives = append(directives, "puppetsrv")
		}
		if slices.Contains(registered, "dns."+name) {
			directives = append(directives, name)
		}
	}
	if err := dnsserver.SetDirectives(directives); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// serve starts a server with a Corefile whose blocks listen on port 0 of
// 127.0.0.1, and returns where it listens. It ends with the test.
func serve(t testing.TB, corefile string) (udp, tcp string) {
	t.Helper()
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"})
	if err != nil {
		t.Fatalf("starting\n%s\n%v", corefile, err)
	}
	t.Cleanup(func() {
		for _, err := range instance.ShutdownCallbacks() {
			t.Error(err)
		}
		if err := instance.Stop(); err != nil {
			t.Error(err)
		}
	})
	servers := instance.Servers()
	if len(servers) != 1 {
		t.Fatalf("%d servers, want one", len(servers))
	}
	addr := func(a net.Addr) string {
		if !strings.HasPrefix(a.String(), "127.0.0.1:") {
			t.Fatalf("listening on %v", a)
		}
		return a.String()
	}
	return addr(servers[0].LocalAddr()), addr(servers[0].Addr())
}
