package cadir_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir/cadirtest"
)

const large = 50_000

var largeSite = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "cadir-large") })

// BenchmarkLook is of a CA with 50 000 certificates, of ECDSA P-256: what a look costs
// when nothing has changed, when one more was signed, and at first.
func BenchmarkLook(b *testing.B) {
	base, err := largeSite()
	must(b, err)
	defer os.RemoveAll(base)
	s := site{path: filepath.Join(base, "ca")}
	s.CA = cadirtest.New(b, s.path, cadirtest.Options{})
	s.Fill(b, large)
	d := open(b, s.path)
	begun := time.Now()
	look(b, d)
	first := time.Since(begun)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			look(b, open(b, s.path))
		}
	})
	b.Run("one more", func(b *testing.B) {
		reads, n := d.Reads(), 0
		for b.Loop() {
			b.StopTimer()
			s.Sign(b, fmt.Sprintf("new%d.example.net", d.Reads()))
			b.StartTimer()
			look(b, d)
			n++
		}
		one := b.Elapsed() / time.Duration(n)
		b.ReportMetric(float64(d.Reads()-reads)/float64(n), "files-read/op")
		b.ReportMetric(float64(first)/float64(one), "first/this")
	})
	b.Run("the same", func(b *testing.B) {
		time.Sleep(200 * time.Millisecond)
		look(b, d)
		for b.Loop() {
			look(b, d)
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if _, err := d.Verify(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
