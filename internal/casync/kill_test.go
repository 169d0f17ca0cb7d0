package casync_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/cadir/cadirtest"
	"github.com/puppetsrv/puppetsrv/internal/casync"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// pullAsChild is a puller in a process of its own: cadir, URL, and directory with its
// certificate. It says when it begins, and each time it has the same.
func pullAsChild() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	path, url, keys := os.Args[2], os.Args[3], os.Args[4]
	d, err := cadir.Open(path, cadir.Options{})
	fail(err)
	pair, err := tls.LoadX509KeyPair(filepath.Join(keys, "cert.pem"), filepath.Join(keys, "key.pem"))
	fail(err)
	ca, err := os.ReadFile(filepath.Join(keys, "ca.pem"))
	fail(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	d.Follow(os.Args[5] == "rejoin")
	p, err := casync.NewPuller(casync.PullerConfig{
		Dir: d, TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool},
		Source: func() (casync.Source, error) { return casync.Source{URL: url, Certname: "m1.example.net"}, nil },
	})
	fail(err)
	fmt.Println("begins")
	go func() {
		for last := uint64(0); ; time.Sleep(time.Millisecond) {
			if n := p.Stats().Syncs; n != last {
				last = n
				fmt.Println("same")
			}
		}
	}()
	fail(p.Run(context.Background()))
}

// A thousand pullers are killed at whatever they are doing. There is never a set that
// does not verify: by openssl on a sample, by cadir each time.
func TestKills(t *testing.T) {
	kills := 1000
	if raced || testing.Short() { // `make test` has the thousand without the race detector
		kills = 50
	}
	if n, err := strconv.Atoi(os.Getenv("PUPPETSRV_KILLS")); err == nil {
		kills = n
	}
	s := newSite(t, options{})
	keys := t.TempDir()
	id, err := s.tls.Issue(stub.IssueOptions{CommonName: "m3.example.net"})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(keys, "cert.pem"), id.CertPEM, 0o600))
	must(t, os.WriteFile(filepath.Join(keys, "key.pem"), id.KeyPEM, 0o600))
	must(t, os.WriteFile(filepath.Join(keys, "ca.pem"), s.tls.PEM(), 0o600))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))

	var finished, journals, firsts int
	var last uint64 // serial at the standby
	longest := 30 * time.Millisecond
	agents := make(map[string]uint64)
	for i := range kills {
		how := "follow"
		switch {
		case i%50 == 49: // the standby begins anew
			must(t, os.RemoveAll(s.path))
			must(t, os.RemoveAll(s.path+".puppetsrv"))
			last = 0
			firsts++
		case i%50 == 24: // the CA is renewed
			s.Renew(t)
			s.Revoke(t)
		}
		for range 1 + random.IntN(6) {
			name := fmt.Sprintf("agent%d.example.net", random.IntN(40))
			if n, ok := agents[name]; ok {
				s.Clean(t, name, n)
				delete(agents, name)
			} else {
				agents[name] = s.Sign(t, name)
			}
		}
		cmd := exec.Command(os.Args[0], "pull-as-child", s.path, s.url, keys, how)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewReader(out)
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		same := make(chan struct{})
		go func() {
			defer close(same)
			_, _ = lines.ReadString('\n') // the end, if it is killed before
		}()
		select {
		case <-same:
			finished++
			longest = longest * 9 / 10
		case <-time.After(time.Duration(random.Int64N(int64(longest)))):
			// So that some get to the end, and kills are spread over all of it.
			longest = min(longest*21/20, 2*time.Second)
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		<-same

		if _, err := os.Stat(s.path + ".puppetsrv/journal"); err == nil {
			journals++
		}
		if _, err := os.Stat(s.path); err != nil {
			if last != 0 {
				t.Fatalf("kill %d: the cadir is gone", i)
			}
			continue
		}
		d, err := cadir.Open(s.path, cadir.Options{})
		must(t, err)
		set, err := d.Verify(t.Context())
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		if set.Serial < last {
			t.Fatalf("kill %d: serial %X after %X", i, set.Serial, last)
		}
		last = set.Serial
		if sealed, err := d.Sealed(); err != nil || !sealed {
			t.Fatalf("kill %d: sealed %v, %v", i, sealed, err)
		}
		if i%10 == 0 || i == kills-1 {
			if err := cadirtest.Check(s.path); err != nil {
				t.Fatalf("kill %d: %v", i, err)
			}
		}
	}
	t.Logf("%d kills: %d after a whole sync, %d with a journal, %d began anew", kills, finished, journals, firsts)
	_, _ = s.pull(t, nil)
	s.waitSame(t)
}
