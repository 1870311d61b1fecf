// The start: kept corrections, the controls, then the first images.

loadCorrections();
startGrid();
startFilters();
startLightbox();
startActions();
startAccuracy();
viewChanged();
drawActions();
