package zone_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

// A snapshot is only read by those who ask it, with and without DO, at once. Run
// with -race. plugin/file appends what belongs to an answer to the slices that it
// keeps, so these must not have room for it.
func TestSnapshotIsOnlyRead(t *testing.T) {
	w := newWorld()
	w.files["example.net."] += `
sub  3600 NS    ns1.elsewhere.example.
sub  3600 NS    ns2.elsewhere.example.
sub  3600 DS    12345 13 2 3131313131313131313131313131313131313131313131313131313131313131
dn   3600 DNAME elsewhere.example.
www  3600 CNAME web
web  3600 A     192.0.2.80
web  3600 A     192.0.2.81
web  3600 A     192.0.2.82
*.wild 3600 CNAME web
`
	s := w.snapshot(t, nil)
	z := s.Zones["example.net."]
	before := transfer(t, z, true)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 20 {
				for _, name := range []string{"x.sub", "sub", "a.dn", "www", "web", "x.wild", "_x-puppet._tcp.datacenter1", "puppet-camaster", "nobody"} {
					for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeNS, dns.TypeDS} {
						name := name + ".example.net."
						req := new(dns.Msg)
						req.SetQuestion(name, qtype).SetEdns0(4096, true)
						answer, ns, extra, _ := z.File.Lookup(context.Background(), request.Request{W: &test.ResponseWriter{}, Req: req}, name)
						_ = texts(slices.Concat(answer, ns, extra))
					}
				}
			}
		})
	}
	readers.Wait()
	if after := transfer(t, z, true); !slices.Equal(before, after) {
		t.Errorf("asked, the zone has changed from\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}
