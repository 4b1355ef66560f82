package scripted

import (
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Fail answers with an error.
func Fail(err error) Unary {
	return func(*Call) (proto.Message, error) { return nil, err }
}

// Answer answers with a response.
func Answer(resp proto.Message) Unary {
	return func(*Call) (proto.Message, error) { return resp, nil }
}

// Hang answers nothing until the client, or the connection, has given up.
func Hang(call *Call) (proto.Message, error) {
	<-call.Context.Done()
	return nil, status.FromContextError(call.Context.Err()).Err()
}

// CutAfter cuts the connection once the request has arrived, as a member does that dies before it can answer.
func CutAfter(call *Call) (proto.Message, error) {
	call.Cut()
	return Hang(call)
}

// FailTimes answers with an error n times, and with an empty response from then on.
func FailTimes(n int, err error) Unary {
	return InTurn(append(repeat(n, Fail(err)), Answer(nil))...)
}

// InTurn answers each call as the next of the handlers does, and with the last one from then on.
func InTurn(handlers ...Unary) Unary {
	turn := make(chan int, 1)
	turn <- 0
	return func(call *Call) (proto.Message, error) {
		i := <-turn
		turn <- min(i+1, len(handlers)-1)
		return handlers[i](call)
	}
}

func repeat(n int, handler Unary) []Unary {
	handlers := make([]Unary, n)
	for i := range handlers {
		handlers[i] = handler
	}
	return handlers
}
