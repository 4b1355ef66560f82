package wire

import "testing"

func TestReceiveBuffersHaveTheLengthAskedFor(t *testing.T) {
	pool := ReceiveBuffers()
	for range 2 { // new ones, and then some that were put back
		for _, n := range []int{0, 1, 1025, 4096, 4097, frameLen - 1, frameLen, frameLen + 1, 1 << 20, 3 << 20} {
			b := pool.Get(n)
			if len(*b) != n {
				t.Errorf("a buffer of %d bytes instead of %d", len(*b), n)
			}
			*b = (*b)[:min(n, 10)] // as the pool's users may
			pool.Put(b)
		}
	}
}

func TestBufferOfFrameIsUsedAgain(t *testing.T) {
	p := &framePool{other: ReceiveBuffers()}
	n := testing.AllocsPerRun(100, func() { p.Put(p.Get(frameLen - 100)) })
	if n >= 1 { // rather than > 0: under the race detector a pool forgets some of what is put into it
		t.Errorf("%v allocations to get a buffer and put it back, want none", n)
	}
}
