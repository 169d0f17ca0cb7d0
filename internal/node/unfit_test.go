package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// A host that wants no work says so itself: it is listed last and shown with the reason,
// and an operator's undrain does not pretend to end that.
func TestAHostDrainsItself(t *testing.T) {
	b := newBunch(t)
	n := b.begin("ns1", b.node("ns1", "dc1", nil))
	b.eventually("both are observed", func() bool { return n.Ready() })
	one := b.daemon("m1.example.net")
	ctx := context.Background()
	last := func() (admin.Master, bool) {
		m, err := n.client.Master(ctx, "m1.example.net")
		if err != nil {
			t.Fatal(err)
		}
		return m, len(m.Verdicts) > 0 && m.Verdicts[0].Priority >= 100
	}
	for _, c := range []struct {
		say  evidence.Evidence
		want string
	}{
		{evidence.Evidence{Drain: &evidence.Drain{Reason: "new JVM"}}, "new JVM"},
		{evidence.Evidence{Puppetserver: evidence.Puppetserver{State: "stopping"}}, "its puppetserver is stopping"},
		{evidence.Evidence{Puppetserver: evidence.Puppetserver{State: "running", Compiles: new(bool), CompileDetail: "500"}}, "it cannot compile: 500"},
	} {
		one.Publish(cluster.Report{Datacenter: "dc1", Release: "test", Member: &c.say})
		b.eventually("it is last: "+c.want, func() bool {
			m, ok := last()
			return ok && m.Drain != nil && m.Drain.Reason == c.want
		})
		var f *admin.Fault
		if _, err := n.client.Undrain(ctx, "m1.example.net", ""); !errors.As(err, &f) || !strings.Contains(f.Detail, c.want) {
			t.Errorf("undrain: %v, want %q", err, c.want)
		}
	}
	one.Publish(cluster.Report{Datacenter: "dc1", Release: "test", Member: &evidence.Evidence{}})
	b.eventually("it is back", func() bool { m, ok := last(); return !ok && m.Drain == nil })
}
