package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// The test binary is also the process that is killed; see TestKill.
func init() {
	if dir := os.Getenv("CLUSTER_TEST_WRITER"); dir != "" {
		writeForEver(dir)
	}
}

// writeForEver writes registers for ever, and prints each once Write has returned.
func writeForEver(dir string) {
	fail := func(err error) {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	c, err := openIn(dir)
	if err != nil {
		fail(err)
	}
	if damaged, err := c.Problem(); damaged {
		fail(err)
	}
	for i := 0; ; i++ {
		ch := flip(fmt.Sprintf("m%d.example.net.", i), "drill")
		if i%3 == 2 {
			ch.Key = fmt.Sprintf("%sm%d.example.net.", register.DrainPrefix, i%4)
		}
		r, err := c.Write(context.Background(), ch, cluster.WaitAll)
		if err != nil {
			fail(err)
		}
		fmt.Printf("%s %s\n", r.Entry.Key, r.Entry.Version)
	}
}

// openIn starts a cluster of one in a directory with a certificate in it.
func openIn(dir string) (*cluster.Cluster, error) {
	id, err := trust.LoadIdentity(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	authority, err := trust.Open(filepath.Join(dir, "ca.pem"), "")
	if err != nil {
		return nil, err
	}
	return cluster.Start(cluster.Config{
		Name: "ns1.example.net", Role: cluster.RoleNode, Identity: id, Authority: authority, Log: quietLog{},
		Policy: cluster.Policy{Signers: isNode}, Disk: stateDir(filepath.Join(dir, "state")),
	})
}

// newStateDir makes what openIn needs.
func newStateDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	ca, err := stub.NewCA("Puppet CA: m1.example.net")
	if err != nil {
		t.Fatal(err)
	}
	id, err := ca.Issue(stub.IssueOptions{CommonName: "ns1.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"ca.pem": ca.PEM(), "cert.pem": id.CertPEM, "key.pem": id.KeyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// stateDir is a Disk in a directory, as a server has it.
type stateDir string

func (d stateDir) Read(name string) ([]byte, error) {
	return store.ReadFile(filepath.Join(string(d), name))
}

func (d stateDir) Write(name string, data []byte) error {
	return store.WriteFile(filepath.Join(string(d), name), data)
}

// A process is killed at random points of its writes, a thousand times: what it said
// was written is there, newer ones are in their place or nothing is, and the file is
// never damaged.
func TestKill(t *testing.T) {
	kills := 1000
	if raced {
		kills = 50
	}
	dir := newStateDir(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	rng := rand.New(rand.NewPCG(uint64(begin.UnixNano()), 1))
	newest := make(map[string]register.Version) // that was said to be written
	var before register.State                   // as of the last kill
	said, between, torn := 0, 0, 0
	for kill := range kills {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "CLUSTER_TEST_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		note := func() error {
			line, err := lines.ReadString('\n')
			if err != nil {
				return err
			}
			key, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			v, err := register.ParseVersion(text)
			if err != nil {
				t.Fatalf("the process says %q", line)
			}
			if v.Compare(newest[key]) <= 0 {
				t.Fatalf("%s %s was written after %s", key, v, newest[key])
			}
			newest[key] = v
			said++
			return nil
		}
		for range 1 + rng.IntN(3) {
			if err := note(); err != nil {
				t.Fatalf("kill %d: the process ended by itself: %v", kill, err)
			}
		}
		// Anywhere in the writes that follow.
		time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Millisecond))))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for note() == nil { // what it still said holds too
		}
		_ = cmd.Wait() // killed
		data, err := os.ReadFile(filepath.Join(dir, "state", "registers.json"))
		if err != nil {
			t.Fatal(err)
		}
		var file struct{ Registers json.RawMessage }
		if err := json.Unmarshal(data, &file); err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		entries, err := register.DecodeState(file.Registers)
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		state, _, err := register.State{}.Merge(entries...)
		if err != nil {
			t.Fatal(err)
		}
		if !state.Contains(before) {
			t.Fatalf("kill %d: the file had\n%s and now\n%s", kill, content(before), content(state))
		}
		before = state
		for key, v := range newest {
			switch c := state.Version(key).Compare(v); {
			case c < 0:
				t.Fatalf("kill %d: %s has %s, and %s was said to be written", kill, key, state.Version(key), v)
			case c > 0:
				between++ // on disk, and not yet said
				newest[key] = state.Version(key)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "state", "registers.json.new")); err == nil {
			torn++
		}
	}
	t.Logf("%d kills in %v, %d writes said; %d were on disk and not yet said, %d files were half-written", kills, time.Since(begin), said, between, torn)
	if kills >= 500 && (between == 0 || torn == 0) {
		t.Error("no kill came in the middle of a write")
	}
	left, err := os.ReadDir(filepath.Join(dir, "state"))
	if err != nil || len(left) > 4 {
		t.Errorf("%d kills left %v, %v", kills, left, err)
	}
	// And the last word is a cluster's.
	c, err := openIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for key, v := range newest {
		if got := c.Registers().Version(key); got != v {
			t.Errorf("%s is %s, want %s", key, got, v)
		}
	}
}
