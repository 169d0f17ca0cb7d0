//go:build linux

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

// cadir is the CA's directory on masters that may become camaster.
const cadir = "/etc/puppet/puppetserver/ca"

var caData = scenario{
	name: "ca-data", title: "the standby has the CA, and every master goes by its CRL",
	run: func(t *T) {
		ctx := t.Context()
		m1, m3, a1 := t.Host("m1"), t.Host("m3"), t.Host("a1")
		r := stack.Requester{From: a1}
		name := fmt.Sprintf("x%d.example.net", time.Now().UnixNano())

		pids := make(map[string]int)
		for _, m := range stack.Masters {
			pid, err := t.Host(m).PID(stack.Puppetserver)
			t.Must(err)
			pids[m] = pid
		}

		certificate, err := r.Sign(ctx, m1, m1.FQDN(), name)
		t.Must(err)
		signed := time.Now()
		t.Must(stack.Until(ctx, "the certificate is on m3", func() error {
			_, err := os.Stat(m3.Path(cadir + "/signed/" + name + ".pem"))
			return err
		}))
		took := time.Since(signed)
		t.Check(took < 10*time.Second, "a certificate signed on m1 is on m3", "within seconds", "%d ms after the answer", took.Milliseconds())

		serial, inventory := m3.Read(cadir+"/serial"), m3.Read(cadir+"/inventory.txt")
		_, err = r.Sign(ctx, m3, m3.FQDN(), "never-"+name)
		_, stray := os.Stat(m3.Path(cadir + "/signed/never-" + name + ".pem"))
		t.Check(err != nil && errors.Is(stray, os.ErrNotExist) && m3.Read(cadir+"/serial") == serial && m3.Read(cadir+"/inventory.txt") == inventory,
			"m3, the standby, is asked to sign", "refused, nothing signed, no serial used", "%s", firstLine(err))
		// m3 has kept the request, until it opens or the request is five minutes old.
		_, err = r.Sign(ctx, m1, m1.FQDN(), "never-"+name)
		t.Check(err == nil, "the same host then asks m1", "signed", "%s", map[bool]string{true: "signed", false: firstLine(err)}[err == nil])

		r.Certificate = certificate
		for _, m := range stack.Masters {
			if status, body, err := revokedAnswer(t, r, m, name); err != nil || status != http.StatusOK {
				t.Fatalf("%s does not serve %s before it is revoked: %d %s %v", m, name, status, body, err)
			}
		}
		t.Must(m1.Run(ctx, "puppetserver", "ca", "revoke", "--certname", name).Error())
		revoked := time.Now()
		var seen []string
		for _, m := range stack.Masters {
			t.Must(stack.Until(ctx, m+" refuses a revoked certificate", func() error {
				status, _, err := revokedAnswer(t, r, m, name)
				if err == nil {
					return fmt.Errorf("it answers %d", status)
				}
				if alert := new(tls.AlertError); !errors.As(err, alert) && !strings.Contains(err.Error(), "tls:") {
					return fmt.Errorf("no refusal, but %w", err)
				}
				return nil
			}))
			seen = append(seen, fmt.Sprintf("%s %.1f s", m, time.Since(revoked).Seconds()))
		}
		t.Check(time.Since(revoked) < 30*time.Second, "a revoked agent is refused by every master", "within seconds of `puppetserver ca revoke`", "%s", strings.Join(seen, ", "))
		restarted := ""
		for _, m := range stack.Masters {
			if pid, err := t.Host(m).PID(stack.Puppetserver); err != nil || pid != pids[m] {
				restarted += m + " "
			}
		}
		t.Check(restarted == "", "puppetservers that were restarted for it", "none", "%s", orNone(restarted))
	},
}

// revokedAnswer asks a master for the node of a certificate, which only its owner may.
func revokedAnswer(t *T, r stack.Requester, master, name string) (int, string, error) {
	h := t.Host(master)
	return r.Ask(t.Context(), h, "8140", h.FQDN(), http.MethodGet, "/puppet/v3/node/"+name+"?environment=production", "")
}

// firstLine is an error for the table.
func firstLine(err error) string {
	if err == nil {
		return "no error"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func orNone(text string) string {
	if text = strings.TrimSpace(text); text == "" {
		return "none"
	}
	return text
}
