"""Pure decisions: values in, values out, time as an argument."""
