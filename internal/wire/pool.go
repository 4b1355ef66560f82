package wire

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// frameLen is the length of the longest HTTP/2 frame that gRPC receives.
const frameLen = 16 << 10

// ReceiveBuffers returns the pool of the buffers in which frames are received, to be put on a client's connection by
// experimental.WithBufferPool. It does not clear a buffer when it hands it out, as gRPC's own pools do, since a frame
// overwrites it whole. It is safe for concurrent use.
func ReceiveBuffers() mem.BufferPool { return frames }

var frames = &framePool{other: mem.DefaultBufferPool()}

type framePool struct {
	full  sync.Pool      // of *[]byte with a capacity of frameLen
	other mem.BufferPool // for what is much shorter than a frame, or longer
}

func (p *framePool) Get(n int) *[]byte {
	if !suits(n) {
		return p.other.Get(n)
	}
	if b, ok := p.full.Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, frameLen)
	return &b
}

func (p *framePool) Put(b *[]byte) {
	if cap(*b) == frameLen {
		p.full.Put(b)
		return
	}
	p.other.Put(b)
}

// suits returns whether a buffer of n bytes is taken from those for a frame: there are others of 4 KiB.
func suits(n int) bool { return n > 4<<10 && n <= frameLen }
