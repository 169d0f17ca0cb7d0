package puppetsrv

import (
	"context"
	"slices"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

func TestMetadataAndCacheBypass(t *testing.T) {
	c := caddy.NewTestController("dns", `puppetsrv example.net dc2.example.org {
		ns         ns1.example.net
		datacenter dc1
		datacenter dc2 dc2.example.org
		master     m1.example.net dc1 ca address 192.0.2.1
		camaster   puppet-camaster m1.example.net
		probe      off
	}`)
	cfg, err := parse(c)
	if err != nil {
		t.Fatal(err)
	}
	p := newPuppetsrv(cfg)
	if got := p.CacheBypassZones(); !slices.Equal(got, []string{"example.net.", "dc2.example.org."}) {
		t.Errorf("the cache bypasses %v", got)
	}
	tests := []struct{ name, datacenter, camaster, serial string }{
		{"_x-puppet._tcp.dc1.example.net.", "dc1", "m1.example.net.", "1"},
		{"_X-Puppet._tcp.DC2.example.org.", "dc2", "m1.example.net.", "1"},
		{"puppet-camaster.example.net.", "", "m1.example.net.", "1"},
		{"elsewhere.example.com.", "", "", ""},
	}
	for _, tt := range tests {
		ctx := metadata.ContextWithMetadata(context.Background())
		m := new(dns.Msg)
		m.SetQuestion(tt.name, dns.TypeSRV)
		ctx = p.Metadata(ctx, request.Request{Req: m, W: &test.ResponseWriter{}})
		for label, want := range map[string]string{"puppetsrv/datacenter": tt.datacenter, "puppetsrv/camaster": tt.camaster, "puppetsrv/serial": tt.serial} {
			got := ""
			if f := metadata.ValueFunc(ctx, label); f != nil {
				got = f()
			}
			if got != want {
				t.Errorf("%s: %s is %q, want %q", tt.name, label, got, want)
			}
		}
	}
}
