package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/store"
)

// BenchmarkSync is what a changed verdict waits for before it is answered.
func BenchmarkSync(b *testing.B) {
	s := store.OpenSerials(b.TempDir())
	for i := range b.N {
		s.Next("example.net.", fmt.Sprint(i), 0, time.Now())
		if err := s.Sync(time.Minute); err != nil {
			b.Fatal(err)
		}
	}
}
