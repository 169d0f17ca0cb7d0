package member

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"slices"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/puppetsrv/puppetsrv/internal/settings"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// export serves the metrics, if that is configured.
func (m *Member) export(s *settings.Settings) error {
	if err := errors.Join(m.metrics.Register(m.gatherer.Collector()), m.registerMetrics()); err != nil {
		return err
	}
	if !s.Metrics.IsValid() {
		return nil
	}
	l, err := net.Listen("tcp", s.Metrics.String())
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	m.exporter = &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader}
	m.done.Go(func() {
		if err := m.exporter.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			m.log.Errorf("Metrics at %s: %s", s.Metrics, err)
		}
	})
	return nil
}

// Reload takes other settings and reads the certificate again. What cannot change while
// it runs is an error, and then nothing changes.
func (m *Member) Reload(s *settings.Settings) error {
	if err := m.fixed(s); err != nil {
		return err
	}
	id, err := trust.LoadIdentity(s.Puppet.Cert, s.Puppet.Key)
	if err != nil {
		return err
	}
	if id.Name != s.Certname {
		return fmt.Errorf("%s is the certificate of %s, and certname is %s: name the host's own", s.Puppet.Cert, id.Name, s.Certname)
	}
	policy := m.policy(s)
	policy.Identity = id
	if err := m.cluster.Update(policy); err != nil {
		return err
	}
	m.trust.identity.Store(id)
	m.current.Store(s)
	m.roll.setNodes(s.Nodes)
	m.changed()
	m.stir()
	return nil
}

// fixed says which changed settings need a restart. The role is not touched by one.
func (m *Member) fixed(s *settings.Settings) error {
	old := m.settings()
	var changed []string
	note := func(key string, same bool) {
		if !same {
			changed = append(changed, key)
		}
	}
	note("certname", old.Certname == s.Certname)
	note("state", old.State == s.State)
	note("socket", old.Socket == s.Socket)
	note("listen", old.Listen == s.Listen)
	note("metrics", old.Metrics == s.Metrics)
	note("gossip", old.Gossip.Bind == s.Gossip.Bind && old.Gossip.Advertise == s.Gossip.Advertise && old.Gossip.Key == s.Gossip.Key && old.Gossip.Profile == s.Gossip.Profile)
	note("puppet", old.Puppet == s.Puppet)
	note("puppetserver", reflect.DeepEqual(old.Puppetserver, s.Puppetserver))
	note("roles", reflect.DeepEqual(rolesOf(old), rolesOf(s)))
	note("reload", slices.EqualFunc(old.Reload, s.Reload, slices.Equal))
	if len(changed) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %q cannot change while the member runs: restart it, which leaves the role as it is", s.File, changed)
}

// rolesOf are the roles without what may change: who gets a copy of the CA.
func rolesOf(s *settings.Settings) settings.Roles {
	roles := s.Roles
	if roles.CA != nil {
		ca := *roles.CA
		ca.Replicas = nil
		roles.CA = &ca
	}
	return roles
}
