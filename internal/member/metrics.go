package member

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "puppetsrv_member_"

// registerMetrics adds what the evidence does not have: what became of copying.
func (m *Member) registerMetrics() error {
	register := func(c prometheus.Collector, err error) error {
		if err != nil {
			return err
		}
		return m.metrics.Register(c)
	}
	counter := func(name, help string, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: prefix + name, Help: help}, func() float64 { return float64(value()) })
	}
	var err error
	add := func(c prometheus.Collector) { err = register(c, err) }
	add(counter("crl_updates_total", "Times that the host's CRL was replaced by the camaster's.", func() uint64 { return m.crl.Stats().Updates }))
	add(counter("crl_failures_total", "Times that the camaster's CRL could not be had or used.", func() uint64 { return m.crl.Stats().Failures }))
	add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + "crl_sync_age_seconds", Help: "Time since the host's CRL was last known to be the camaster's."}, func() float64 {
		if t := m.crl.Stats().Same; !t.IsZero() {
			return time.Since(t).Seconds()
		}
		return time.Since(m.started).Seconds()
	}))
	if m.ca == nil {
		return err
	}
	add(counter("ca_syncs_total", "Sets of the CA's files that were taken over from the camaster.", func() uint64 { return m.ca.puller.Stats().Syncs }))
	add(counter("ca_sync_failures_total", "Times that the camaster's CA could not be had, or was not taken over.", func() uint64 { return m.ca.puller.Stats().Failures }))
	add(counter("ca_sent_bytes_total", "Bytes of the CA's files that were sent to replicas.", func() uint64 { return m.ca.server.Stats().Bytes }))
	add(counter("ca_refused_total", "Requests for the CA's files of certnames that may not have them.", func() uint64 { return m.ca.server.Stats().Refused }))
	return err
}
