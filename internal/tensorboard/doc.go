// Package tensorboard writes event files as TensorBoard reads them: TFRecord frames with
// masked CRC32C sums, an Event message of protobuf in each.
//
// It knows nothing of training: it is given tags, steps and values. The messages are
// written field by field, for of TensorFlow's many schemas four are needed, in part.
package tensorboard
