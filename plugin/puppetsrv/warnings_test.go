package puppetsrv

import (
	"strings"
	"testing"

	"github.com/coredns/caddy"
)

// What works, but hardly as meant, is said at start.
func TestWarnings(t *testing.T) {
	base := `datacenter dc1
		master     m1.example.net dc1 ca
		camaster   puppet-camaster m1.example.net
		probe      off
		ns         ns1
	`
	tests := map[string]struct{ zones, more, want string }{
		"no address":          {"", "state " + t.TempDir(), "m1.example.net. has no address"},
		"no state":            {"", "", "no `state` directory"},
		"unused service":      {"", "master m2.example.net dc1 service m2", "not used without `targets service`"},
		"zone never asked":    {"example.net example.org", "", "zone example.org. is never asked for"},
		"address not in ours": {"", "master m3.example.org dc1", "m3.example.org. has no address in the zones served here"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := caddy.NewTestController("dns", "puppetsrv "+tt.zones+" {\n"+base+tt.more+"\n}")
			c.ServerBlockKeys = []string{"example.net."}
			cfg, err := parse(c)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(cfg.warnings, "\n"), tt.want) {
				t.Errorf("warnings %q lack %q", cfg.warnings, tt.want)
			}
		})
	}
}
