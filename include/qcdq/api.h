// Marks what qcdq's shared libraries export; everything else is hidden.
#pragma once
#define QCDQ_API __attribute__((visibility("default")))
